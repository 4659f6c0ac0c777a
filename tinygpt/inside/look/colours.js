"use strict";
// Colour scales that read the same to colour-blind eyes: one way in lightness, along blue and
// yellow. More is darker on paper, brighter at night.

const NIGHT = "(prefers-color-scheme: dark)";
const night = matchMedia(NIGHT);
const dark = {
  get matches() {
    return night.matches && !paper;
  },
};
const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Call `listener` when day turns to night or back. Each listener has a query of its own: a shared
 * query that is read just before tells nobody.
 */
function whenDarkChanges(listener) {
  matchMedia(NIGHT).addEventListener("change", listener);
  atPrinting.push(listener);
}

// -- on paper --

// whether the page is being printed: in light colours, also the parts that nobody has seen yet
let paper = false;
const atPrinting = [];
const drawnForPaper = [];
const FINE = 3; // dots for each pixel of the screen

/** Call `drawn` before the page is printed, to draw at once what else is drawn when it is seen. */
function onPaper(drawn) {
  drawnForPaper.push(drawn);
}

function setPaper(printing) {
  paper = printing;
  document.documentElement.classList.toggle("paper", paper);
  for (const listener of atPrinting) listener();
  if (paper) for (const drawn of drawnForPaper) drawn();
}

addEventListener("beforeprint", () => setPaper(true));
addEventListener("afterprint", () => setPaper(false));

/** Dots of a canvas for each CSS pixel. */
function density() {
  return Math.max(paper ? FINE : 1, devicePixelRatio || 1);
}

const SCALES = {
  share: {
    light: ["#fffbe6", "#f3e3a1", "#c9c384", "#93a38b", "#5f8192", "#335c8d", "#143670", "#0a1744"],
    dark: ["#161f3a", "#1d3a70", "#3b5a8c", "#667b92", "#959a86", "#c6b96b", "#ecd85a", "#fff48f"],
  },
  signed: {
    light: ["#06357f", "#3b74ba", "#93b7da", "#f5f3ee", "#e9b98a", "#c97424", "#7f3a00"],
    dark: ["#8cc4ff", "#4b8fd6", "#2c4f7d", "#242934", "#7a4f26", "#d08a3f", "#ffc27d"],
  },
};
const STEPS = 256;
const tables = new Map();

/** 256 colours of a scale, [red, green, blue] each. */
function table(name) {
  const key = `${name} ${dark.matches}`;
  if (!tables.has(key))
    tables.set(key, interpolated(SCALES[name][dark.matches ? "dark" : "light"].map(channels)));
  return tables.get(key);
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function interpolated(anchors) {
  return Array.from({ length: STEPS }, (_, i) => {
    const place = (i / (STEPS - 1)) * (anchors.length - 1);
    const below = Math.min(Math.floor(place), anchors.length - 2);
    return anchors[below].map((from, channel) =>
      Math.round(from + (anchors[below + 1][channel] - from) * (place - below)),
    );
  });
}

/** The colour of a share from 0 to 1. The scale follows the square root, for small shares. */
function shareColour(share) {
  return table("share")[shareLevel(share)];
}

/** Its place in the scale. */
function shareLevel(share) {
  return Math.round(Math.sqrt(Math.min(1, Math.max(0, share))) * (STEPS - 1));
}

/** The colour of a number between -limit and limit. */
function signedColour(value, limit) {
  return table("signed")[
    Math.round((Math.min(1, Math.max(-1, value / limit)) + 1) * 0.5 * (STEPS - 1))
  ];
}

function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** Black or white, whichever is read better on a colour: one always has a contrast of 4.5. */
function inkOn(colour) {
  const [red, green, blue] = colour.map((channel) => {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

const themes = new Map();

/** A colour that the style sheet names. */
function themed(name) {
  const key = `${name} ${dark.matches}`;
  if (!themes.has(key))
    themes.set(
      key,
      getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(),
    );
  return themes.get(key);
}

/** A scale as a background from left to right. */
function gradient(name) {
  const colours = Array.from({ length: 17 }, (_, i) => {
    const at = i / 16;
    return css(name === "share" ? shareColour(at) : signedColour(2 * at - 1, 1));
  });
  return `linear-gradient(to right, ${colours.join(", ")})`;
}
