"use strict";
// A heat map on a canvas: hover or arrow keys tell the number of a cell. The map is drawn when it
// can be seen, and again when it has changed.

const TALLEST = 440; // pixels of a map that is no square
const NAMED = 10; // pixels a row must have to be named

/**
 * A map in `host`, to be given what to show:
 *   rows, columns, value(row, column)     NaN: nothing to see there; undefined: not kept
 *   colour(value), scale: [name, lowest, highest]
 *   rowName(row), columnName(column), say(row, column, value), label
 *   square, largest                       whether cells are squares, and how wide they may be
 *   moved(row, column)                    called when the reader points at a cell
 *   row                                   the row to mark
 */
function heatMap(host) {
  const map = {
    host,
    canvas: element("canvas", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "heat map",
    }),
  };
  map.said = element("p", { kind: "said", "aria-live": "polite" });
  map.scale = element("div", {
    kind: "scale",
    children: [element("span"), element("span"), element("span")],
  });
  host.append(map.said, map.canvas, map.scale);
  map.visible = false;
  new IntersectionObserver(
    ([entry]) => {
      map.visible = entry.isIntersecting;
      if (map.visible && map.stale) refresh(map, false);
    },
    { rootMargin: "150px" },
  ).observe(host);
  new ResizeObserver(([entry]) => {
    map.width = Math.floor(entry.contentRect.width);
    refresh(map, false);
  }).observe(host);
  map.canvas.addEventListener("pointermove", (event) => pointAt(map, event));
  map.canvas.addEventListener("keydown", (event) => step(map, event));
  map.canvas.addEventListener("focus", () => map.shown && tell(map));
  onPaper(() => map.shown && map.place && !map.host.hidden && draw(map));
  return map;
}

/** Show other numbers. */
function show(map, shown) {
  map.shown = shown;
  map.cell =
    map.cell && map.cell[0] < shown.rows && map.cell[1] < shown.columns
      ? map.cell
      : [shown.rows - 1, 0];
  map.canvas.setAttribute("aria-label", `${shown.label}. Arrow keys move from number to number.`);
  if (map.pointed) tell(map, true);
  else map.said.textContent = "Point at a cell to read its number.";
  map.said.classList.toggle("hint", !map.pointed);
  refresh(map, true);
}

/** Draw it with the next frame if it can be seen, else when it is; it takes its place at once. */
function refresh(map, anew) {
  if (anew) map.image = null;
  if (!map.shown || !map.width) return;
  map.place = placed(map.shown, map.width);
  map.canvas.style.width = `${map.place.width}px`;
  map.canvas.style.height = `${map.place.height}px`;
  if (map.visible && !map.awaited) requestAnimationFrame(() => draw(map));
  map.awaited = map.visible;
  map.stale = true;
}

// -- drawing --

function draw(map) {
  const { shown, canvas } = map;
  map.awaited = false;
  map.stale = paper && !map.visible; // to be drawn for the screen again
  const { left, top, width, height, across, down } = map.place;
  const ratio = density();
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  map.image = map.image || painted(shown);
  pen.imageSmoothingEnabled = across < 1;
  pen.drawImage(map.image, left, top, across * shown.columns, down * shown.rows);
  hatch(pen, map);
  names(pen, map);
  mark(pen, map);
  drawScale(map);
  performance.mark(`look: drawn ${map.host.parentElement.id}`);
}

/** Where the cells are: margins for names, the size of a cell. */
function placed(shown, width) {
  const largest = shown.largest || 26;
  const fit = (left) => {
    const across = Math.min(largest, (width - left) / shown.columns);
    return {
      left,
      across,
      down: shown.square ? across : Math.min(20, Math.max(2, TALLEST / shown.rows)),
    };
  };
  let place = fit(10 + 8 * longest(shown.rowName, shown.rows));
  if (place.down < NAMED) place = fit(0);
  const { left, across, down } = place;
  const letters = longest(shown.columnName, shown.columns);
  const upright = letters > 2; // names that are too long to stand side by side
  let top = upright ? 10 + 8 * letters : 20;
  if (!shown.columnName || across < NAMED) top = 0;
  return {
    ...place,
    top,
    upright,
    width: Math.ceil(left + across * shown.columns),
    height: Math.ceil(top + down * shown.rows) + 2,
  };
}

/** Letters of the longest of the first names; 0 where there are none. */
function longest(name, many) {
  return name
    ? Math.max(...Array.from({ length: Math.min(many, 200) }, (_, i) => cut(name(i)).length))
    : 0;
}

/** A name that is not too long for a margin. */
function cut(name) {
  return name.length > 12 ? `${name.slice(0, 11)}\u2026` : name;
}

/** The numbers as an image, a pixel each. */
function painted(shown) {
  const image = new OffscreenCanvas(shown.columns, shown.rows);
  const pen = image.getContext("2d");
  const pixels = pen.createImageData(shown.columns, shown.rows);
  let at = 0;
  for (let row = 0; row < shown.rows; row++) {
    for (let column = 0; column < shown.columns; column++, at += 4) {
      const value = shown.value(row, column);
      if (value === undefined || Number.isNaN(value) || value === -Infinity) continue; // left clear
      const colour = shown.colour(value);
      pixels.data[at] = colour[0];
      pixels.data[at + 1] = colour[1];
      pixels.data[at + 2] = colour[2];
      pixels.data[at + 3] = 255;
    }
  }
  pen.putImageData(pixels, 0, 0);
  return image;
}

/** What has no number is hatched, so that it is not taken for a small one. */
function hatch(pen, { shown, place }) {
  const { left, top, across, down } = place;
  pen.save();
  pen.globalCompositeOperation = "destination-over";
  pen.fillStyle = pen.createPattern(stripes(themed("line")), "repeat");
  pen.fillRect(left, top, across * shown.columns, down * shown.rows);
  pen.restore();
}

function stripes(colour) {
  const tile = new OffscreenCanvas(6, 6);
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour;
  for (const x of [-6, 0, 6]) {
    pen.moveTo(x - 1, 7);
    pen.lineTo(x + 7, -1);
  }
  pen.stroke();
  return tile;
}

function names(pen, { shown, place }) {
  const { left, top, across, down, upright } = place;
  const font = (room) => `${Math.min(14, Math.max(10, room * 0.75))}px ${themed("mono")}`;
  pen.textBaseline = "middle";
  pen.fillStyle = themed("soft");
  if (left) {
    pen.font = font(down);
    pen.textAlign = "right";
    for (let row = 0; row < shown.rows; row++)
      pen.fillText(cut(shown.rowName(row)), left - 5, top + (row + 0.5) * down, left - 6);
  }
  if (!top) return;
  pen.font = font(across);
  pen.textAlign = upright ? "left" : "center";
  for (let column = 0; column < shown.columns; column++) {
    pen.save();
    pen.translate(left + (column + 0.5) * across, upright ? top - 5 : top - 9);
    if (upright) pen.rotate(-Math.PI / 2);
    pen.fillText(
      cut(shown.columnName(column)),
      0,
      0,
      upright ? top - 6 : Math.max(across * 1.1, 12),
    );
    pen.restore();
  }
}

/** A frame around the row of the chosen token, and around the cell pointed at. */
function mark(pen, { shown, place, cell, pointed }) {
  const { left, top, across, down } = place;
  pen.strokeStyle = themed("accent");
  if (shown.row !== undefined && shown.row >= 0 && shown.row < shown.rows) {
    pen.lineWidth = 2;
    pen.strokeRect(left + 1, top + shown.row * down, across * shown.columns - 2, Math.max(down, 3));
  }
  if (!pointed) return;
  const [x, y] = [left + cell[1] * across, top + cell[0] * down];
  const grow = Math.max(0, 7 - Math.min(across, down)) / 2;
  for (const [colour, width] of [
    ["#000000", 4],
    ["#ffffff", 2],
  ]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.strokeRect(x - grow, y - grow, across + 2 * grow, down + 2 * grow);
  }
}

function drawScale({ scale, shown }) {
  const [name, lowest, highest] = shown.scale;
  scale.children[0].textContent = lowest;
  scale.children[1].style.background = gradient(name);
  scale.children[2].textContent = highest;
}

// -- pointing --

function pointAt(map, event) {
  if (!map.place) return;
  const box = map.canvas.getBoundingClientRect();
  const { left, top, across, down } = map.place;
  const column = Math.floor((event.clientX - box.left - left) / across);
  const row = Math.floor((event.clientY - box.top - top) / down);
  if (row >= 0 && column >= 0 && row < map.shown.rows && column < map.shown.columns)
    go(map, row, column);
}

const MOVES = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  Home: [0, -Infinity],
  End: [0, Infinity],
  PageUp: [-10, 0],
  PageDown: [10, 0],
};

function step(map, event) {
  const move = MOVES[event.key];
  if (!move || !map.shown || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const within = (place, count) => Math.min(count - 1, Math.max(0, place));
  go(
    map,
    within(map.cell[0] + move[0], map.shown.rows),
    within(map.cell[1] + move[1], map.shown.columns),
  );
}

function go(map, row, column) {
  if (map.pointed && map.cell[0] === row && map.cell[1] === column) return;
  map.cell = [row, column];
  tell(map);
  if (map.shown.moved) map.shown.moved(row, column);
  refresh(map, false);
}

function tell(map) {
  map.pointed = true;
  map.said.classList.remove("hint");
  const [row, column] = map.cell;
  map.said.textContent = map.shown.say(row, column, map.shown.value(row, column));
}
