// The cluster at a glance.

import { addSamples } from "./charts.js";
import { $, $$, h, icon, keyed, nothing, say } from "./dom.js";
import { drawEvents } from "./events.js";
import { bytes, delay, lasted, percent, plural, seconds, short, whole } from "./format.js";
import { watch } from "./live.js";
import { link, picture } from "./page.js";
import { stateOf, worst } from "./states.js";

let mark = 0;

const FIGURES = [
  ["cpu", "CPU", percent],
  ["memory", "Memory", bytes],
  ["loop_lag", "Loop lag", delay],
  ["lag", "Redis lag", delay],
  ["waiting", "Queue", whole],
  ["received", "In", (value) => `${short(value)}/s`],
  ["delivered", "Out", (value) => `${short(value)}/s`],
  ["p99", "Fan-out p99", seconds],
  ["taps", "Taps", whole],
  ["rejected", "Rejected", whole],
];

function makeCard(node) {
  return h(
    "article",
    { class: "panel card", "data-testid": "node", "aria-label": `Node ${node.id}` },
    h(
      "header",
      {},
      h("h3", { class: "clip" }, link("node", node.id)),
      h("span", { class: "pill" }, h("i"), h("span")),
    ),
    h("p", { class: "soft clip", "data-part": "about" }),
    h("p", { class: "big" }, h("b", { "data-part": "connections" }), h("span", {}, " connections")),
    h(
      "dl",
      { class: "figures" },
      ...FIGURES.map(([key, label]) => h("div", {}, h("dt", {}, label), h("dd", { "data-part": key }))),
    ),
    h("p", { class: "card-trouble", "data-part": "trouble", hidden: true }),
  );
}

function updateCard(card, node) {
  const part = (name) => $(`[data-part="${name}"]`, card);
  card.dataset.state = node.state;
  card.dataset.known = String(node.started !== undefined);
  const pill = $(".pill", card);
  pill.dataset.tone = stateOf(node.state).tone;
  say($("span", pill), stateOf(node.state).word);
  const known = node.started !== undefined;
  const gone = node.lost ? `gone for ${lasted(Date.now() - node.lost)}` : "without a lease in Redis";
  // The age of its last word is the node's that shows the page to tell, whose clock and the browser's may differ.
  const isHeard = !["silent", "lost"].includes(node.state);
  const since = isHeard
    ? `up ${lasted(Date.now() - node.started)}`
    : `silent for ${lasted(node.silent * 1000)}`;
  say(part("about"), known ? `${node.version} · ${since}` : gone);
  say(part("connections"), known ? whole(node.connections) : "–");
  for (const [key, , write] of FIGURES) say(part(key), known ? write(node[key]) : "–");
  const told = (node.trouble ?? []).join("; ");
  part("trouble").hidden = !told;
  if (told && part("trouble").textContent !== told)
    part("trouble").replaceChildren(icon("alert"), h("span", {}, told));
}

function drawHealth(nodes) {
  const box = $("#health");
  const state = worst(nodes);
  const affected = nodes.filter((node) => node.state === state).length;
  // A list without nodes, or of nodes that Redis does not list, says nothing good of any.
  const isKnown = nodes.some((node) => node.started !== undefined);
  box.dataset.tone = isKnown ? stateOf(state).tone : "bad";
  box.dataset.state = isKnown ? state : "none";
  const all = nodes.length === 1 ? "The node is ready" : `All ${nodes.length} nodes are ready`;
  const some = `${plural(affected, "node")} ${stateOf(state).word.toLowerCase()}`;
  say($("span", box), isKnown ? (state === "ok" ? all : some) : "No node is registered");
}

function draw({ totals, nodes, events, series, mark: newest }) {
  if (totals === undefined) return;
  mark = newest;
  for (const target of $$("[data-total]")) {
    const value = totals[target.dataset.total];
    say(target, value < 100_000 ? whole(value) : short(value));
    target.title = whole(value);
  }
  addSamples(series);
  drawHealth(nodes);
  keyed($("#nodes"), nodes, (node) => node.id, makeCard, updateCard);
  if (!nodes.length) nothing($("#nodes"), "No node has reported yet");
  drawEvents($("#events"), events);
}

draw(picture);
watch("overview", () => ({ mark: String(mark) }), draw);
