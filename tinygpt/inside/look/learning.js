"use strict";
// How it was learned: the slider over the models that were kept, the loss, the map of embeddings,
// and what they made of the text.

const PAUSE = 1100; // milliseconds from one set of weights to the next, when played

function makeLearning() {
  makeSlider();
  makeSamples();
  makeLosses();
  makeMap();
  const several = facts.sights.length > 1;
  $("learning-lead").textContent = several
    ? "A few copies of the model were kept while it learned. Move the slider at the top, or " +
      "choose a row below: the tokens, the heads and all pictures here follow."
    : `There is nothing to move through: ${facts.whyFew}.`;
}

// -- the slider --

function makeSlider() {
  const slider = $("when");
  slider.max = String(facts.sights.length - 1);
  slider.disabled = $("play").disabled = facts.sights.length < 2;
  slider.addEventListener("input", () => {
    stop();
    change({ sight: Number(slider.value) });
  });
  $("play").addEventListener("click", () => (playing ? stop() : play()));
  $("when-said").style.minWidth =
    `${Math.max(...facts.sights.map((_, i) => stepName(i).length))}ch`; // the slider stands still
  when(["sight"], showSlider);
  showSlider();
}

function showSlider() {
  $("when").value = String(now.sight);
  $("when").setAttribute("aria-valuetext", stepName(now.sight));
  $("when-said").textContent = stepName(now.sight);
}

let playing = 0;

function play() {
  change({ sight: now.sight === facts.sights.length - 1 ? 0 : now.sight + 1 });
  playing = setInterval(() => {
    if (now.sight === facts.sights.length - 1) stop();
    else change({ sight: now.sight + 1 });
  }, PAUSE);
  $("play").textContent = "Stop";
  $("play").setAttribute("aria-pressed", "true");
}

function stop() {
  clearInterval(playing);
  playing = 0;
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
}

// -- what they made of the text --

function makeSamples() {
  $("samples").tBodies[0].append(...facts.sights.map(sampleRow));
  when(["sight"], showSample);
  showSample();
}

function sampleRow(sight, i) {
  const name =
    sight.step === null ? "now" : `${count(sight.step)}${sight.best ? " (the best)" : ""}`;
  const button = element("button", {
    type: "button",
    text: name,
    "aria-label": `Show the model ${stepName(i)}`,
  });
  const text = element("td", {
    children: [
      element("bdi", { text: tailOf(facts.given) }),
      element("bdi", { kind: "written", text: spaced(sight.written) }),
    ],
  });
  const loss = element("td", {
    kind: "number",
    text: sight.loss === null ? "\u2013" : sight.loss.toFixed(3),
  });
  const row = element("tr", { children: [element("td", { children: [button] }), loss, text] });
  row.addEventListener("click", () => change({ sight: i }));
  return row;
}

/** Spaces that would not be seen are drawn. */
function spaced(text) {
  return text.replace(/ {2,}| $/g, (spaces) => "\u2423".repeat(spaces.length));
}

function tailOf(text) {
  return text.length > 60 ? `\u2026${text.slice(-60)}` : text;
}

function showSample() {
  [...$("samples").tBodies[0].rows].forEach((row, i) =>
    i === now.sight
      ? row.setAttribute("aria-current", "true")
      : row.removeAttribute("aria-current"),
  );
}

// -- a canvas that is drawn when it is seen --

/** A pen for a canvas as large as its place, in CSS pixels. */
function fitted(canvas) {
  const ratio = density();
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { pen, width, height };
}

function drawnWhenSeen(canvas, draw) {
  let seen = false;
  const again = () => seen && draw();
  new IntersectionObserver(
    ([entry]) => {
      seen = entry.isIntersecting;
      again();
    },
    { rootMargin: "100px" },
  ).observe(canvas);
  new ResizeObserver(again).observe(canvas.parentElement);
  whenDarkChanges(again);
  onPaper(draw);
  return again;
}

// -- the loss --

function makeLosses() {
  const { steps: at, losses } = facts.losses;
  const canvas = $("losses");
  if (!at.length) {
    canvas.hidden = true;
    $("losses-note").textContent = "This run holds no losses: it was not trained here.";
    return;
  }
  const again = drawnWhenSeen(canvas, () => drawLosses(canvas));
  when(["sight"], () => {
    sayLoss(canvas);
    again();
  });
  sayLoss(canvas);
}

function lossAt(step) {
  const { steps: at, losses } = facts.losses;
  let i = 0;
  while (i < at.length - 1 && at[i] < step) i++;
  return losses[i];
}

function sayLoss(canvas) {
  const { steps: at, losses } = facts.losses;
  const { step } = facts.sights[now.sight];
  const measured = facts.losses.validation.length
    ? " Dots: on text that was not learned from."
    : "";
  const here = step === null ? "" : ` ${stepName(now.sight)}: ${lossAt(step).toFixed(3)}.`;
  $("losses-note").textContent =
    "Nats a token, mean of neighbouring batches; the line marks the model that is shown." +
    here.replace(" a", " A") +
    measured;
  const [first, last] = [losses[0].toFixed(3), losses.at(-1).toFixed(3)];
  const label = `Loss from ${first} at step ${at[0]} to ${last} at step ${at.at(-1)}.${here}`;
  canvas.setAttribute("aria-label", label);
}

function drawLosses(canvas) {
  const { pen, width, height } = fitted(canvas);
  const { steps: at, losses, validation } = facts.losses;
  const all = [...losses, ...validation.map(([, loss]) => loss)];
  const box = { left: 46, top: 10, right: width - 10, bottom: height - 34 };
  const x = (step) =>
    box.left + ((box.right - box.left) * Math.log1p(step)) / Math.log1p(at.at(-1));
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const logarithmic = low > 0;
  const bend = logarithmic ? Math.log : (loss) => loss;
  const y = (loss) =>
    box.bottom -
    ((box.bottom - box.top) * (bend(loss) - bend(low))) / (bend(high) - bend(low) || 1);
  axes(pen, box, x, y, at.at(-1), low, high);
  pen.strokeStyle = themed("accent");
  pen.lineWidth = 2;
  pen.beginPath();
  at.forEach((step, i) => pen.lineTo(x(step), y(losses[i])));
  pen.stroke();
  pen.fillStyle = themed("written");
  for (const [step, loss] of validation) disc(pen, x(step), y(loss), 3.5);
  const { step } = facts.sights[now.sight];
  if (step === null) return;
  pen.strokeStyle = themed("ink");
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(x(step), box.top);
  pen.lineTo(x(step), box.bottom);
  pen.stroke();
  pen.setLineDash([]);
  pen.fillStyle = themed("ink");
  disc(pen, x(step), y(lossAt(step)), 5);
}

function disc(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
}

/** Lines at 1, 2 and 5 of each power of ten. */
function axes(pen, box, x, y, last, low, high) {
  pen.font = "13px system-ui, sans-serif";
  pen.fillStyle = themed("soft");
  pen.strokeStyle = themed("line");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  let above = Infinity;
  for (const loss of ticks(Math.max(low, 1e-6), high)) {
    if (above - y(loss) < 16) continue;
    above = y(loss);
    pen.moveTo(box.left, y(loss));
    pen.lineTo(box.right, y(loss));
    pen.fillText(String(loss), box.left - 6, y(loss));
  }
  pen.textAlign = "center";
  let before = -Infinity;
  for (const step of [0, ...ticks(1, last)]) {
    if (x(step) - before < 34) continue;
    before = x(step);
    pen.fillText(count(step), Math.min(x(step), box.right - 8), box.bottom + 12);
  }
  pen.stroke();
  pen.fillText("step (logarithmic)", (box.left + box.right) / 2, box.bottom + 27);
}

function ticks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of [1, 2, 5]) {
      const tick = Number((digit * 10 ** power).toPrecision(1));
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found;
}
