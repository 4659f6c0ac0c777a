"use strict";
// Begin: the head of the page, the choices in the bar, then each part.

function makeHead() {
  document.title = `${facts.run}: ${facts.given}`;
  $("text").append(
    element("bdi", { text: facts.given }),
    element("bdi", { kind: "written", text: facts.written }),
  );
  $("text").classList.toggle("long", facts.given.length + facts.written.length > 160);
  if (facts.written) $("text").lastChild.title = "written by the model";
  const blocks = facts.layers === 1 ? "block" : "blocks";
  const each = facts.source ? "each, " : "";
  const heads = facts.heads === 1 ? "head" : "heads";
  const parts = [
    `${facts.run}: ${facts.kind} ${facts.layers} ${blocks} ${each}with ${facts.heads} ${heads} each`,
    `${facts.width} numbers a token`,
    `a vocabulary of ${count(facts.vocabulary)} tokens`,
    `a context of ${count(facts.context)} of them`,
    `${count(facts.parameters)} parameters`,
  ];
  const underlined = facts.written ? " The model wrote the underlined text." : "";
  $("about").textContent =
    `${parts.join(", ")}.${underlined} The model computed every number on this page.`;
  $("sees").textContent = facts.sees;
  $("example").textContent = facts.example;
  $("loss-on").textContent = facts.lossOn;
  if (facts.labels) {
    $("outcome").textContent = "label";
    $("walking").textContent = "From the text to its label, step by step";
  }
  $("end").textContent = "One file, which asks for nothing from the network. Made by tinygpt look.";
}

/** Radio buttons of these names for a field of `now`. */
function makeChoice(field, names) {
  const host = $(field);
  names.forEach((name, i) => {
    const input = element("input", {
      type: "radio",
      name: field,
      value: i,
      "aria-label": `${field} ${name}`,
    });
    input.addEventListener("change", () => change({ [field]: i }));
    host.append(element("label", { children: [input, element("span", { text: name })] }));
  });
  const check = () => (host.querySelectorAll("input")[now[field]].checked = true);
  when([field], check);
  check();
}

makeHead();
makeChoice(
  "block",
  facts.maps.map(({ label }) => label),
);
makeChoice(
  "head",
  Array.from({ length: facts.heads }, (_, head) => String(head)),
);
makeTokens();
makeAttention();
makeSteps();
makeLearning();
performance.mark("look: ready");
