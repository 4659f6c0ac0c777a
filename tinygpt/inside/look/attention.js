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
  const { name, rows, columns } = facts.maps[now.block];
  $("attention-title").textContent = `${name}, head ${now.head}, ${stepName(now.sight)}`;
  if (map.key === key) {
    map.shown.row = now.token - rows[0]; // another token of the same map: nothing to paint anew
    refresh(map, false);
    return;
  }
  map.key = key;
  show(map, {
    rows: rows[1] - rows[0],
    columns: columns[1] - columns[0],
    square: true,
    value: (row, column) => weight(row + rows[0], column + columns[0]),
    colour: shareColour,
    scale: ["share", "0", "1"],
    rowName: (row) => wordAt(row + rows[0]),
    columnName: (column) => wordAt(column + columns[0]),
    row: now.token - rows[0],
    label: `Attention of ${name[0].toLowerCase()}${name.slice(1)}, head ${now.head}`,
    say: (row, column, share) => sayWeight(row + rows[0], column + columns[0], share),
    moved: (row) => change({ token: row + rows[0] }),
  });
}

function sayWeight(row, column, share) {
  const [from, to] = [spoken(facts.ids[row]), spoken(facts.ids[column])];
  const looks = `${from} (position ${position(row)})`;
  if (Number.isNaN(share))
    return `${looks} cannot see ${to} (position ${position(column)}), which comes later.`;
  if (share === undefined) return `Not kept for the model ${stepName(now.sight)}.`;
  if (!facts.sights[now.sight].shown)
    return `${looks} takes about ${share.toFixed(2)} from ${to} (position ${position(column)}).`;
  const score = sayScore(row, column);
  return `${looks} takes ${figure(share)} from ${to} (position ${position(column)}).${score}`;
}

/** What the weight was made of, where that is kept. */
function sayScore(row, column) {
  const weights = facts.steps.find(({ map }) => map === now.block);
  const step = facts.steps.find(({ name }) => name === weights.name.replace("weights", "scores"));
  const kept = row - step.first;
  return kept < 0 ? "" : ` Score ${figure(reader(step)(kept, column - step.across))}.`;
}

// -- all heads --

const waiting = new Set(); // small maps that are still to be drawn

function makeThumbnails() {
  const host = $("thumbnails");
  for (let block = 0; block < facts.maps.length; block++) {
    const buttons = Array.from({ length: facts.heads }, (_, head) => thumbnail(block, head));
    const row = element("div", {
      kind: "row",
      children: [element("span", { text: labelOf(block) }), ...buttons],
    });
    const columns = Math.min(facts.heads, facts.maps.length * facts.heads > 32 ? 12 : 4);
    row.style.gridTemplateColumns = `${facts.source ? 74 : 52}px repeat(${columns}, minmax(0, 1fr))`;
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

/** "Block 0"; of an encoder-decoder "encoder 0", "decoder 0" or "cross 0". */
function labelOf(block) {
  const { label } = facts.maps[block];
  return facts.source ? label : `Block ${label}`;
}

function thumbnail(block, head) {
  const canvas = element("canvas", { "data-block": block, "data-head": head });
  canvas.width = canvas.height = SMALL;
  const button = element("button", {
    type: "button",
    "aria-label": `${labelOf(block)}, head ${head}`,
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
    drawSmall(canvas, Number(canvas.dataset.block), Number(canvas.dataset.head));
    if (performance.now() > until) break;
  }
}

/** Where several weights fall on one pixel, the largest is drawn. */
function drawSmall(canvas, block, head) {
  const weight = attentionOf(now.sight, block, head);
  const { rows, columns, causal } = facts.maps[block];
  const [height, width] = [rows[1] - rows[0], columns[1] - columns[0]];
  const [down, across] = [Math.min(SMALL, height), Math.min(SMALL, width)];
  const largest = new Float32Array(down * across).fill(-1);
  for (let query = 0; query < height; query++) {
    const row = Math.floor((query * down) / height) * across;
    for (let key = 0; key < (causal ? query + 1 : width); key++) {
      const at = row + Math.floor((key * across) / width);
      const share = weight(query + rows[0], key + columns[0]);
      if (share > largest[at]) largest[at] = share;
    }
  }
  const image = painted({
    rows: down,
    columns: across,
    colour: shareColour,
    value: (row, column) =>
      largest[row * across + column] < 0 ? NaN : largest[row * across + column],
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = themed("hidden");
  pen.fillRect(0, 0, SMALL, SMALL);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, SMALL, SMALL);
}
