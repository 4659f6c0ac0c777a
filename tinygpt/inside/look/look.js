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
  const heads = facts.heads === 1 ? "head" : "heads";
  const parts = [
    `${facts.run}: a GPT of ${facts.layers} ${blocks} with ${facts.heads} ${heads} each`,
    `${facts.width} numbers a token`,
    `a vocabulary of ${count(facts.vocabulary)} tokens`,
    `a context of ${count(facts.context)} of them`,
    `${count(facts.parameters)} parameters`,
  ];
  const underlined = facts.written ? " What is underlined, it wrote." : "";
  $("about").textContent =
    `${parts.join(", ")}.${underlined} All that you see here, this model computed.`;
  $("end").textContent = "One file, which asks for nothing from the network. Made by tinygpt look.";
}

/** Radio buttons 0, 1, ... for a field of `now`. */
function makeChoice(field, many) {
  const host = $(field);
  for (let i = 0; i < many; i++) {
    const input = element("input", {
      type: "radio",
      name: field,
      value: i,
      "aria-label": `${field} ${i}`,
    });
    input.addEventListener("change", () => change({ [field]: i }));
    host.append(element("label", { children: [input, element("span", { text: String(i) })] }));
  }
  const check = () => (host.querySelectorAll("input")[now[field]].checked = true);
  when([field], check);
  check();
}

makeHead();
makeChoice("block", facts.layers);
makeChoice("head", facts.heads);
makeTokens();
makeAttention();
makeSteps();
makeLearning();
performance.mark("look: ready");
