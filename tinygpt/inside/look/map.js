"use strict";
// The map of embeddings: the plane in which those of the shown weights differ most, and where
// earlier weights had them.

const TRAVEL = 400; // milliseconds that points take from one place to the next
const chart = { at: null, pointed: -1, extent: null, placed: null };

function makeMap() {
  const canvas = $("map");
  chart.ids = numbers("map ids");
  chart.inText = new Set(facts.ids);
  chart.extent = extentOf();
  chart.at = Float32Array.from(numbers(`map ${now.sight}`));
  const again = drawnWhenSeen(canvas, () => drawMap(canvas));
  when(["sight"], () => {
    if (chart.pointed >= 0) sayPoint();
    travel(again);
  });
  when(["token"], again);
  canvas.addEventListener("pointermove", (event) => pointNear(canvas, event, again));
  canvas.addEventListener("keydown", (event) => nextPoint(event, again));
  canvas.addEventListener("focus", () => {
    chart.pointed = Math.max(0, chart.pointed);
    sayPoint();
    again();
  });
  canvas.setAttribute(
    "aria-label",
    "Token embeddings in a plane. Arrow keys move from token to token.",
  );
  $("map-said").textContent = "Point at a token to name it.";
  $("map-said").classList.add("hint");
  $("map-note").textContent =
    `Tokens that lie together are alike to the model. The plane shows ${percent(facts.share)} of ` +
    `how the ${count(facts.vocabulary)} embeddings differ; filled: tokens of the text.`;
}

/** The middle and half the width of all that is ever shown: the map stands still. */
function extentOf() {
  let [low, high] = [
    [Infinity, Infinity],
    [-Infinity, -Infinity],
  ];
  for (let sight = 0; sight < facts.sights.length; sight++) {
    numbers(`map ${sight}`).forEach((value, i) => {
      low[i % 2] = Math.min(low[i % 2], value);
      high[i % 2] = Math.max(high[i % 2], value);
    });
  }
  return {
    middle: low.map((value, i) => (value + high[i]) / 2),
    half: Math.max(high[0] - low[0], high[1] - low[1]) / 2 || 1,
  };
}

function travel(again) {
  const [from, to, began] = [chart.at, numbers(`map ${now.sight}`), performance.now()];
  if (still.matches) {
    chart.at = to;
    again();
    return;
  }
  const frame = (time) => {
    if (to !== numbers(`map ${now.sight}`)) return; // another journey has begun
    const done = Math.min(1, Math.max(0, time - began) / TRAVEL);
    const eased = done * done * (3 - 2 * done);
    chart.at = Float32Array.from(to, (value, i) => from[i] + (value - from[i]) * eased);
    again();
    if (done < 1) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

function drawMap(canvas) {
  const { pen, width, height } = fitted(canvas);
  const scale = Math.min(width, height) / 2 - 24;
  const place = (i) => [
    width / 2 +
      ((chart.at[2 * i] - chart.extent.middle[0]) / chart.extent.half) *
        scale *
        Math.min(1.5, width / height),
    height / 2 - ((chart.at[2 * i + 1] - chart.extent.middle[1]) / chart.extent.half) * scale,
  ];
  chart.placed = Array.from(chart.ids, (_, i) => place(i));
  const [soft, written, ink] = [themed("soft"), themed("written"), themed("ink")];
  const few = chart.ids.length <= 120;
  pen.font = `14px ${themed("mono")}`;
  pen.textBaseline = "middle";
  chart.placed.forEach(([x, y], i) => {
    const inText = chart.inText.has(chart.ids[i]);
    pen.fillStyle = pen.strokeStyle = inText ? written : soft;
    if (inText) disc(pen, x, y, 4);
    else pen.strokeRect(x - 3, y - 3, 6, 6);
    if (few || (inText && chart.inText.size < 60)) pen.fillText(word(chart.ids[i]), x + 7, y);
  });
  const chosen = chart.pointed >= 0 ? chart.pointed : chart.ids.indexOf(facts.ids[now.token]);
  pen.strokeStyle = ink;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(...chart.placed[chosen], 8, 0, 7);
  pen.stroke();
}

function pointNear(canvas, event, again) {
  if (!chart.placed) return;
  const box = canvas.getBoundingClientRect();
  const away = chart.placed.map(([x, y]) =>
    Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top),
  );
  const nearest = away.indexOf(Math.min(...away));
  if (away[nearest] > 30 || nearest === chart.pointed) return;
  chart.pointed = nearest;
  sayPoint();
  again();
}

function nextPoint(event, again) {
  const moves = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  if (!(event.key in moves)) return;
  event.preventDefault();
  chart.pointed = (chart.pointed + moves[event.key] + chart.ids.length) % chart.ids.length;
  sayPoint();
  again();
}

/** A token and the three that lie nearest to it, in the map. */
function sayPoint() {
  const at = numbers(`map ${now.sight}`); // where the points are, or travel to
  const [x, y] = [at[2 * chart.pointed], at[2 * chart.pointed + 1]];
  const away = Array.from(chart.ids, (id, i) => ({
    id,
    i,
    far: Math.hypot(at[2 * i] - x, at[2 * i + 1] - y),
  }));
  const near = away
    .filter(({ i }) => i !== chart.pointed)
    .sort((a, b) => a.far - b.far)
    .slice(0, 3);
  const id = chart.ids[chart.pointed];
  $("map-said").classList.remove("hint");
  const names = near.map((other) => spoken(other.id)).join(", ") || "none";
  $("map-said").textContent =
    `${spoken(id)} (id ${id}) at ${figure(x)}, ${figure(y)}. Nearest: ${names}.`;
}
