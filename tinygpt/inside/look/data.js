"use strict";
// The facts and arrays of the page, and what of them is shown just now.

const facts = JSON.parse(document.getElementById("facts").textContent);
const tokens = facts.ids.length;
const now = {
  token: facts.start,
  block: facts.maps.indexOf(facts.maps.at(facts.map)),
  head: 0,
  sight: facts.sights.findIndex((sight) => sight.shown),
  step: 0,
};

// -- what is shown --

const listeners = [];

/** Call `listener` whenever one of these fields of `now` has changed. */
function when(fields, listener) {
  listeners.push({ fields, listener });
}

/** Set fields of `now`, and tell whom it concerns. */
function change(fields) {
  const changed = Object.keys(fields).filter((name) => now[name] !== fields[name]);
  Object.assign(now, fields);
  for (const { fields: wanted, listener } of listeners) {
    if (wanted.some((name) => changed.includes(name))) listener();
  }
}

// -- arrays --

const KINDS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
const decoded = new Map();

/** The numbers of a block, decoded when first wanted. */
function numbers(name) {
  if (!decoded.has(name)) {
    const block = document.getElementById("array " + name);
    decoded.set(name, new KINDS[block.dataset.kind](bytes(block.textContent).buffer));
    block.remove(); // the text is of no more use
  }
  return decoded.get(name);
}

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const result = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) result[i] = text.charCodeAt(i);
  return result;
}

/**
 * How much the token at place `query` takes from the one at place `key`, in the map of that block.
 * NaN: it cannot see the key. undefined: the weight was not kept.
 */
function attentionOf(sight, block, head) {
  const { first, shown } = facts.sights[sight];
  const { rows, columns, causal } = facts.maps[block];
  const values = numbers(`attention ${sight} ${block} ${head}`);
  const width = columns[1] - columns[0];
  const begin = causal ? (row) => (row * (row + 1)) / 2 : (row) => row * width;
  const before = begin(first); // weights of rows that were not kept
  const unit = shown ? 1 : 1 / 255;
  return (query, key) => {
    const [row, column] = [query - rows[0], key - columns[0]];
    const outside = !within(query, rows) || !within(key, columns);
    if (outside || (causal && column > row)) return NaN;
    return row < first ? undefined : values[begin(row) + column - before] * unit;
  };
}

function within(place, [start, stop]) {
  return place >= start && place < stop;
}

/** [{ id, p }] of what is expected after a token, the likeliest first; none after the source's. */
function expected(sight, token) {
  const ids = numbers(`candidates ${sight}`);
  const probabilities = numbers(`probabilities ${sight}`);
  const count = token < facts.source ? 0 : ids.length / (tokens - facts.source);
  const begin = (token - facts.source) * count;
  return Array.from({ length: count }, (_, i) => ({
    id: ids[begin + i],
    p: probabilities[begin + i],
  }));
}

// -- words --

/** A token's text as it is shown: a space is seen. */
function word(id) {
  return facts.words[id].replaceAll(" ", "\u2423");
}

/** The word of the token at a place of the text. */
function wordAt(place) {
  return word(facts.ids[place]);
}

/** The position of a token in its own text: the source, or the text that the model writes. */
function position(place) {
  return place < facts.source ? place : place - facts.source;
}

/** A token's text as it is read aloud. */
function spoken(id) {
  const text = facts.words[id];
  if (text.trim() !== "") return `“${text.replaceAll(" ", "\u2423")}”`;
  return { 0: "nothing", 1: "space" }[text.length] || `${text.length} spaces`;
}

/** 0.4213 as 42.1 %; what is less than a tenth of a percent says so. */
function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** A number with five digits, or fewer where they are zeros. */
function figure(value) {
  if (Number.isNaN(value)) return "not a number";
  if (!Number.isFinite(value)) return value < 0 ? "\u2212\u221e" : "\u221e";
  return String(Number(value.toPrecision(5))).replace("-", "\u2212");
}

function count(number) {
  return number.toLocaleString("en");
}

function stepName(sight) {
  const { step, best } = facts.sights[sight];
  return step === null ? "as it is" : `after step ${count(step)}${best ? " (the best)" : ""}`;
}

// -- the page --

function $(id) {
  return document.getElementById(id);
}

/** An element with text, a class and children: text is only ever text. */
function element(tag, { text, kind, children, ...attributes } = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (children) made.append(...children);
  return made;
}
