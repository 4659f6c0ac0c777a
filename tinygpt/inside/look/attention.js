"use strict";
// The map of one head, and small maps of all heads to choose from.

const SMALL = 64; // pixels of a small map's side

function makeAttention() {
  const map = heatMap($("attention").querySelector(".heat"));
  const look = () => showAttention(map);
  when(["token", "block", "head", "sight"], look);
  whenDarkChanges(look);
  look();
  makeThumbnails();
}

function showAttention(map) {
  const weight = attentionOf(now.sight, now.block, now.head);
  const key = `${now.sight} ${now.block} ${now.head} ${dark.matches}`;
  $("attention-title").textContent = `Block ${now.block}, head ${now.head}, ${stepName(now.sight)}`;
  if (map.key === key) {
    map.shown.row = now.token; // another token of the same map: nothing to paint anew
    refresh(map, false);
    return;
  }
  map.key = key;
  show(map, {
    rows: tokens,
    columns: tokens,
    square: true,
    value: weight,
    colour: shareColour,
    scale: ["share", "0", "1"],
    rowName: wordAt,
    columnName: wordAt,
    row: now.token,
    label: `Attention of block ${now.block}, head ${now.head}`,
    say: sayWeight,
    moved: (row) => change({ token: row }),
  });
}

function sayWeight(row, column, share) {
  const [from, to] = [spoken(facts.ids[row]), spoken(facts.ids[column])];
  const looks = `${from} (position ${row})`;
  if (Number.isNaN(share))
    return `${looks} cannot see ${to} (position ${column}), which comes later.`;
  if (share === undefined) return `Not kept for the model ${stepName(now.sight)}.`;
  if (!facts.sights[now.sight].shown)
    return `${looks} takes about ${share.toFixed(2)} from ${to} (position ${column}).`;
  const score = sayScore(row, column);
  return `${looks} takes ${figure(share)} from ${to} (position ${column}).${score}`;
}

/** What the weight was made of, where that is kept. */
function sayScore(row, column) {
  const step = facts.steps.find(({ name }) => name === `blocks.${now.block}.scores`);
  const kept = row - (tokens - step.rows);
  return kept < 0 ? "" : ` Score ${figure(reader(step)(kept, column))}.`;
}

// -- all heads --

const waiting = new Set(); // small maps that are still to be drawn

function makeThumbnails() {
  const host = $("thumbnails");
  for (let block = 0; block < facts.layers; block++) {
    const buttons = Array.from({ length: facts.heads }, (_, head) => thumbnail(block, head));
    const row = element("div", {
      kind: "row",
      children: [element("span", { text: `Block ${block}` }), ...buttons],
    });
    const columns = Math.min(facts.heads, facts.layers * facts.heads > 32 ? 12 : 4);
    row.style.gridTemplateColumns = `52px repeat(${columns}, minmax(0, 1fr))`;
    if (facts.heads > columns)
      row.firstChild.style.gridRow = `span ${Math.ceil(facts.heads / columns)}`;
    host.append(row);
  }
  const anew = () => {
    for (const canvas of host.querySelectorAll("canvas")) waiting.add(canvas);
    requestAnimationFrame(drawSome);
  };
  when(["sight"], anew);
  when(["block", "head"], pressChosen);
  whenDarkChanges(anew);
  onPaper(() => drawWaiting(Infinity));
  pressChosen();
  requestAnimationFrame(() => setTimeout(anew, 60)); // after the first view is there
}

function thumbnail(block, head) {
  const canvas = element("canvas", { "data-block": block, "data-head": head });
  canvas.width = canvas.height = SMALL;
  const button = element("button", {
    type: "button",
    "aria-label": `Block ${block}, head ${head}`,
    children: [canvas],
  });
  button.addEventListener("click", () => change({ block, head }));
  return button;
}

function pressChosen() {
  for (const canvas of $("thumbnails").querySelectorAll("canvas")) {
    const pressed =
      Number(canvas.dataset.block) === now.block && Number(canvas.dataset.head) === now.head;
    canvas.parentElement.setAttribute("aria-pressed", String(pressed));
  }
}

/** A few each frame, so that none of them makes the reader wait. */
function drawSome() {
  drawWaiting(performance.now() + 8);
  if (waiting.size) requestAnimationFrame(drawSome);
}

/** Those that still wait, as far as one comes until that time. */
function drawWaiting(until) {
  for (const canvas of waiting) {
    waiting.delete(canvas);
    drawSmall(
      canvas,
      attentionOf(now.sight, Number(canvas.dataset.block), Number(canvas.dataset.head)),
    );
    if (performance.now() > until) break;
  }
}

/** Where several weights fall on one pixel, the largest is drawn. */
function drawSmall(canvas, weight) {
  const side = Math.min(SMALL, tokens);
  const largest = new Float32Array(side * side).fill(-1);
  for (let query = 0; query < tokens; query++) {
    const row = Math.floor((query * side) / tokens) * side;
    for (let key = 0; key <= query; key++) {
      const at = row + Math.floor((key * side) / tokens);
      const share = weight(query, key);
      if (share > largest[at]) largest[at] = share;
    }
  }
  const image = painted({
    rows: side,
    columns: side,
    colour: shareColour,
    value: (row, column) => (largest[row * side + column] < 0 ? NaN : largest[row * side + column]),
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = themed("hidden");
  pen.fillRect(0, 0, SMALL, SMALL);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, SMALL, SMALL);
}
