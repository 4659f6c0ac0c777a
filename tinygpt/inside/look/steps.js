"use strict";
// The way from text to the next token: a list of steps, and one of them in detail.

const AXES = {
  T: "tokens",
  C: "numbers",
  H: "heads",
  D: "numbers a head",
  S: "tokens looked at",
  V: "tokens of the vocabulary",
  F: "features",
};
const steps = [
  {
    part: "Text",
    title: "Text",
    words:
      "What the model is given. It knows no letters and no words: " +
      "only the numbers that the text is turned into.",
    formula: "",
    kind: "text",
  },
  {
    part: "Text",
    title: "Tokens",
    words: "The text is cut into pieces that the model knows.",
    formula: "",
    kind: "tokens",
  },
  ...facts.steps.map((step) => ({ ...step, kind: step.axes === "BT" ? "ids" : "array" })),
  facts.labels
    ? {
        part: "Prediction",
        title: "Label",
        words: "The likeliest label at the last token is what the model says of the text.",
        formula: "label = argmax p",
        kind: "next",
      }
    : {
        part: "Prediction",
        title: "Next token",
        words:
          "One of the candidates is taken: the likeliest, or one drawn by chance. " +
          "It joins the text, and the whole way begins anew.",
        formula: "next ~ p",
        kind: "next",
      },
];

function makeSteps() {
  const parts = [...new Set(steps.map((step) => step.part))];
  $("steps").append(...parts.map(partList));
  $("steps").addEventListener("keydown", walkSteps);
  const map = heatMap($("step").querySelector(".heat"));
  when(["step", "head"], () => showStep(map));
  when(["token"], () => markToken(map));
  whenDarkChanges(() => showStep(map));
  change({ step: steps.findIndex((step) => step.title === "Token + position") });
}

function partList(part, number) {
  const items = steps.flatMap((step, i) =>
    step.part === part ? [element("li", { children: [stepButton(step, i)] })] : [],
  );
  const list = element("details", {
    children: [element("summary", { text: part }), element("ol", { children: items })],
  });
  list.open = !/block (?!0:)/i.test(part); // of the blocks, which are all alike, the first
  return list;
}

function stepButton(step, i) {
  const button = element("button", {
    type: "button",
    "data-step": i,
    kind: step.title === "Residual sum" ? "sum" : "",
    children: [element("span", { text: step.title })],
  });
  if (step.shape)
    button.append(element("span", { kind: "shape", text: step.shape.join("\u00d7") }));
  button.addEventListener("click", () => change({ step: i }));
  return button;
}

function walkSteps(event) {
  const moves = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -1, ArrowRight: 1 };
  if (!(event.key in moves) || event.target.tagName !== "BUTTON") return;
  event.preventDefault();
  const next = Math.min(
    steps.length - 1,
    Math.max(0, Number(event.target.dataset.step) + moves[event.key]),
  );
  const button = $("steps").querySelector(`[data-step="${next}"]`);
  button.closest("details").open = true;
  button.focus();
  change({ step: next });
}

function showStep(map) {
  const step = steps[now.step];
  for (const button of $("steps").querySelectorAll("button")) {
    if (Number(button.dataset.step) === now.step) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
  }
  $("step-part").textContent = step.part;
  $("step-title").textContent = step.title;
  $("step-words").textContent = step.words;
  $("step-formula").textContent = step.formula;
  $("step-formula").parentElement.hidden = step.formula === "";
  $("step-facts").replaceChildren(...(step.shape ? factsOf(step) : []));
  $("step-pieces").replaceChildren(...pieces(step));
  map.host.hidden = step.kind !== "array";
  $("step-note").textContent = step.kind === "array" ? note(step) : "";
  if (step.kind === "array") showArray(map, step);
}

// -- what is no array --

function pieces(step) {
  if (step.kind === "text") return [element("span", { text: facts.given + facts.written })];
  if (step.kind === "tokens") return facts.ids.map((id) => element("span", { text: word(id) }));
  if (step.kind === "ids")
    return facts.ids.slice(step.first, step.first + step.rows).map((id) =>
      element("span", {
        children: [element("bdi", { text: word(id) }), element("small", { text: String(id) })],
      }),
    );
  if (step.kind !== "next") return [];
  const last = tokens - 1;
  return expected(
    facts.sights.findIndex((sight) => sight.shown),
    last,
  ).map(({ id, p }) =>
    element("span", {
      children: [element("bdi", { text: word(id) }), element("small", { text: percent(p) })],
    }),
  );
}

// -- how an array lies in memory --

function factsOf(step) {
  const letters = [...step.axes];
  const named = letters
    .map((letter, i) => (letter === "B" ? "a batch of 1" : `${step.shape[i]} ${AXES[letter]}`))
    .join(" \u00d7 ");
  const strides = letters
    .map((letter, i) => (step.shape[i] > 1 ? `${letter}: ${count(step.strides[i])}` : ""))
    .filter(Boolean)
    .join(", ");
  const lies = step.contiguous
    ? "its numbers lie one after another, in the order of their indices"
    : "a view: the numbers of another array, found with other steps";
  return [
    ["Shape", `(${step.shape.join(", ")})`, named],
    [
      "Strides",
      `(${step.strides.join(", ")})`,
      strides ? `numbers to go on for the next of ${strides}` : "one number",
    ],
    [
      "Offset",
      count(step.offset),
      step.offset ? "numbers before the first one" : "it begins where its memory begins",
    ],
    ["Contiguous", step.contiguous ? "yes" : "no", lies],
    ["On the tape", step.source, "its name where the engine records what it does"],
    [
      "Type",
      step.dtype,
      `${count(step.shape.reduce((a, b) => a * b, 1))} numbers, ${count(step.bytes)} bytes`,
    ],
  ].map(([name, value, more]) =>
    element("div", {
      children: [
        element("dt", { text: name }),
        element("dd", {
          children: [element("code", { text: value }), element("small", { text: more })],
        }),
      ],
    }),
  );
}

// -- its numbers --

/** value(row, column) of the chosen head of a step; rows and columns are those that were kept. */
function reader(step) {
  const { first, across } = step;
  if (step.map !== null) {
    const sight = facts.sights.findIndex(({ shown }) => shown);
    const weight = attentionOf(sight, step.map, now.head);
    return (row, column) => weight(row + first, column + across);
  }
  const values = numbers(`step ${step.name}`);
  const before = step.axes.includes("H") ? now.head * step.rows * step.kept : 0;
  if (step.like === "masked")
    return (row, column) =>
      column + across > row + first ? -Infinity : values[before + row * step.kept + column];
  return (row, column) => values[before + row * step.kept + column];
}

function showArray(map, step) {
  const value = reader(step);
  const share = step.name === "probabilities" || step.map !== null;
  const limit = share ? 1 : limitOf(step, value);
  const { first } = step;
  const columns = columnNames(step);
  show(map, {
    rows: step.rows,
    columns: step.kept,
    square: step.axes.endsWith("S"),
    largest: 15,
    row: now.token - first,
    value,
    colour: share ? shareColour : (number) => signedColour(number, limit),
    scale: share ? ["share", "0", "1"] : ["signed", `\u2212${figure(limit)}`, figure(limit)],
    rowName: (row) => wordAt(row + first),
    columnName: columns.short,
    label: `${step.title} of ${step.part}`,
    say: (row, column, number) => {
      const token = `Row ${spoken(facts.ids[row + first])} (position ${position(row + first)})`;
      const masked = number === undefined || Number.isNaN(number);
      return `${token}, ${columns.long(column)}: ${masked ? "0, masked" : figure(number)}`;
    },
  });
}

/** The row of another token: nothing is painted anew. */
function markToken(map) {
  const step = steps[now.step];
  if (step.kind !== "array") return;
  map.shown.row = now.token - step.first;
  refresh(map, false);
}

function columnNames(step) {
  const last = step.axes.at(-1);
  if (last === "S")
    return {
      short: (column) => wordAt(column + step.across),
      long: (column) => {
        const place = column + step.across;
        return `column ${spoken(facts.ids[place])} (position ${position(place)})`;
      },
    };
  if (last === "V")
    return {
      short: (column) => word(facts.columns[column]),
      long: (column) => `column ${spoken(facts.columns[column])} (id ${facts.columns[column]})`,
    };
  return { short: null, long: (column) => `column ${column}` };
}

/** What counts as large here: all but one in a hundred numbers are smaller. */
function limitOf(step, value) {
  const sizes = [];
  const every = Math.max(1, Math.floor((step.rows * step.kept) / 5000));
  for (let i = 0; i < step.rows * step.kept; i += every) {
    const number = value(Math.floor(i / step.kept), i % step.kept);
    if (Number.isFinite(number)) sizes.push(Math.abs(number));
  }
  sizes.sort((a, b) => a - b);
  return Number((sizes[Math.floor(0.99 * (sizes.length - 1))] || 1).toPrecision(2));
}

function note(step) {
  const parts = [];
  if (step.axes.includes("H"))
    parts.push(
      `${step.part.split(":")[0]}, head ${now.head}: choose another head in the bar above.`,
    );
  const kind = step.axes.at(-1);
  const what = { S: "the tokens looked at", V: "tokens of the vocabulary" };
  parts.push(`Rows: tokens. Columns: ${what[kind] || "the numbers of a token"}.`);
  const all = step.shape[step.axes.indexOf("T")];
  if (step.rows < all)
    parts.push(`Of ${count(all)} tokens the last ${step.rows} are kept in this page.`);
  if (step.kept < step.shape.at(-1))
    parts.push(
      kind === "V"
        ? `The ${step.kept} likeliest of ${count(step.shape.at(-1))}.`
        : `The first ${count(step.kept)} of ${count(step.shape.at(-1))} numbers.`,
    );
  return parts.join(" ");
}
