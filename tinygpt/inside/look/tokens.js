"use strict";
// The strip of tokens, what the chosen one looks at, and what it expects next.

const MANY = 100; // tokens from which on the strip is set small

function makeTokens() {
  const strip = $("tokens");
  strip.classList.toggle("many", tokens > MANY);
  strip.append(...facts.ids.map(chip));
  if (tokens <= MANY) $("under").textContent = " Under each token: its id, then its share.";
  strip.addEventListener("pointerover", (event) => choose(event.target.closest("li")));
  strip.addEventListener("focusin", (event) => choose(event.target.closest("li")));
  strip.addEventListener("keydown", walkTokens);
  when(["token", "block", "head", "sight"], showTokens);
  when(["token", "sight"], showExpected);
  whenDarkChanges(showTokens);
  showTokens();
  showExpected();
}

function chip(id, place) {
  const written = place >= facts.prompt;
  const by = written ? ", written by the model" : "";
  const name = `${spoken(id)}, position ${position(place)}, id ${id}${by}`;
  const attributes = {
    role: "option",
    tabindex: -1,
    "data-place": place,
    "aria-label": name,
    kind: (written ? "written" : "") + (place && place === facts.source ? " begins" : ""),
  };
  // one element each: hundreds must follow the reader at once
  if (tokens > MANY) return element("li", { ...attributes, text: word(id) });
  const parts = [
    element("bdi", { kind: "word", text: word(id) }),
    element("span", { kind: "small", text: String(id) }),
    element("span", { kind: "small" }),
  ];
  return element("li", { ...attributes, children: parts });
}

function choose(item) {
  if (item) change({ token: Number(item.dataset.place) });
}

function walkTokens(event) {
  const moves = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -10,
    ArrowDown: 10,
    Home: -Infinity,
    End: Infinity,
  };
  if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const place = Math.min(tokens - 1, Math.max(0, now.token + moves[event.key]));
  $("tokens").children[place].focus();
}

let chosen = null; // the chip that can be reached with the tab key

function showTokens() {
  $("stronger").textContent = dark.matches ? "brighter" : "darker";
  const weight = attentionOf(now.sight, now.block, now.head);
  const chips = $("tokens").children;
  if (paintedDark !== dark.matches) paintedAs.length = 0;
  paintedDark = dark.matches;
  for (let place = 0; place < tokens; place++)
    paintChip(chips[place], place, weight(now.token, place));
  if (chosen) {
    chosen.tabIndex = -1;
    chosen.setAttribute("aria-selected", "false");
  }
  chosen = chips[now.token];
  chosen.tabIndex = 0;
  chosen.setAttribute("aria-selected", "true");
  $("seen").replaceChildren(...seen(weight));
}

// for each place, what its chip shows, as a number: most stay as they are when the reader moves on
const paintedAs = [];
let paintedDark = dark.matches;

/** A token's chip in the colour of its share; a token that cannot be seen steps back. */
function paintChip(item, place, share) {
  const hidden = Number.isNaN(share) || share === undefined;
  const shown = hidden ? -1 : shareLevel(share) * 128 + Math.round(100 * share);
  if (paintedAs[place] === shown) return;
  paintedAs[place] = shown;
  const colour = hidden ? null : shareColour(share);
  item.classList.toggle("later", hidden);
  item.style.backgroundColor = colour ? css(colour) : "";
  item.style.color = colour ? inkOn(colour) : "";
  if (tokens > MANY) return;
  const percents = share >= 0.005 ? `${Math.round(100 * share)} %` : "\u00b7";
  item.lastChild.textContent = hidden ? "\u00a0" : percents;
}

/** What the chosen token looks at most, in words. */
function seen(weight) {
  const { name, rows, columns } = facts.maps[now.block];
  if (!within(now.token, rows))
    return [`${name}: its rows are the tokens of the ${rows[0] ? "target" : "source"}. Choose one.`];
  if (weight(now.token, columns[0]) === undefined)
    return [
      `Of the model ${stepName(now.sight)} this page holds the attention ` +
        `of the last ${rows[1] - rows[0] - facts.sights[now.sight].first} tokens.`,
    ];
  const parts = [
    element("b", { text: wordAt(now.token) }),
    ` (position ${position(now.token)}) takes most from `,
  ];
  largest(weight, 4).forEach(({ place, share }, i) => {
    if (i) parts.push(", ");
    parts.push(
      element("b", { text: wordAt(place) }),
      place === now.token ? " (itself) " : ` (position ${position(place)}) `,
      percent(share),
    );
  });
  return [...parts, "."];
}

/** The `many` largest shares of the chosen token, the largest first. */
function largest(weight, many) {
  const found = [];
  for (let place = 0; place < tokens; place++) {
    const share = weight(now.token, place);
    if (Number.isNaN(share)) continue;
    if (found.length === many && share <= found[many - 1].share) continue;
    found.push({ place, share });
    found.sort((a, b) => b.share - a.share);
    found.length = Math.min(found.length, many);
  }
  return found;
}

// -- what comes next --

function showExpected() {
  const follows = facts.labels ? undefined : facts.ids[now.token + 1];
  const candidates = expected(now.sight, now.token);
  const title = $("next-title");
  $("next").querySelector("table").hidden = !candidates.length;
  if (!candidates.length) {
    title.textContent = "The source is read";
    $("next-note").textContent = "Nothing is predicted after its tokens: choose one of the target.";
    return;
  }
  const does = facts.labels ? " it says" : " it expects";
  title.replaceChildren("After ", element("bdi", { text: tail(now.token) }), does);
  $("candidates").replaceChildren(
    ...candidates.map(({ id, p }) => candidate(id, p, candidates[0].p, id === follows)),
  );
  $("next-note").textContent = followsNote(follows, candidates);
}

/** The last few tokens up to a place, as text. */
function tail(place) {
  const from = Math.max(facts.source, place - 8);
  const text = facts.ids
    .slice(from, place + 1)
    .map((id) => facts.words[id])
    .join("");
  const short = text.length > 24 ? text.slice(-24) : text;
  const dots = from > facts.source || short.length < text.length ? "\u2026" : "";
  return `\u201c${dots}${short.replaceAll(" ", "\u2423")}\u201d`;
}

function candidate(id, p, most, follows) {
  const bar = element("div", { kind: "bar-of" });
  bar.style.width = `${(100 * p) / Math.max(most, 1e-9)}%`;
  const name = element("td", { children: [element("bdi", { text: word(id) })] });
  return element("tr", {
    kind: follows ? "follows" : "",
    children: [
      name,
      element("td", { "aria-hidden": "true", children: [bar] }),
      element("td", { text: percent(p) }),
    ],
  });
}

function followsNote(follows, candidates) {
  if (facts.labels)
    return now.token === tokens - 1
      ? "This token has seen all of the text: its likeliest label is that of the text."
      : "The label of the text is read at its last token, which has seen all of the text.";
  if (follows === undefined) return "This is the last token here: nothing follows it yet.";
  const written = now.token + 1 >= facts.prompt;
  const rank = candidates.findIndex(({ id }) => id === follows);
  const what = `${written ? "The model wrote" : "The text goes on with"} ${spoken(follows)}`;
  return rank < 0
    ? `${what}, which is not among its first ${candidates.length}.`
    : `${what}: its choice number ${rank + 1}, marked above.`;
}
