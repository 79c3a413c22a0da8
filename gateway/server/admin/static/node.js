// One node.

import { addSamples } from "./charts.js";
import { $, $$, say } from "./dom.js";
import { drawEvents } from "./events.js";
import { facts } from "./facts.js";
import { bytes, day, delay, lasted, percent, seconds, short, whole } from "./format.js";
import { watch } from "./live.js";
import { act, confirm, linkTo, missing, name, picture } from "./page.js";
import { stateOf } from "./states.js";

let mark = 0;
const WRITE = { cpu: percent, memory: bytes, received: short, delivered: short };

function draw({ missing: text, node, events, series, mark: newest, here }) {
  if (events) drawEvents($("#events"), events);
  missing(text);
  $("#health").hidden = Boolean(text);
  if (!node) return text && facts($("#facts"), [["State", "not a member of the cluster"]]);
  const state = stateOf(node.state);
  $("#health").dataset.tone = state.tone;
  $("#health").dataset.state = node.state;
  say($("#health span"), state.word);
  $("#drain").hidden = ["lost", "draining", "unregistered"].includes(node.state);
  for (const target of $$("[data-figure]")) {
    const key = target.dataset.figure;
    say(target, node[key] === undefined ? "–" : (WRITE[key] ?? whole)(node[key]));
  }
  if (newest !== undefined) mark = newest;
  addSamples(series ?? []);
  facts($("#facts"), described(node, here));
}

function described(node, here) {
  if (node.started === undefined)
    return [node.lost ? ["Lost", day(node.lost)] : ["Lease", "none"], ["Trouble", node.trouble.join("; ")]];
  return [
    ["Host", node.host],
    ["Version", node.version],
    ["Started", day(node.started)],
    ["Up for", lasted(Date.now() - node.started)],
    ["Last heard of", `${node.silent.toFixed(1)} s ago${here ? ", it serves this page" : ""}`],
    ["Event loop lag", delay(node.loop_lag)],
    ["Redis lag", delay(node.lag)],
    ["Publications waiting", whole(node.waiting)],
    ["Published", `${short(node.published)}/s`],
    ["Fan-out", `p50 ${seconds(node.p50)}, p99 ${seconds(node.p99)}`],
    ["Taps open", whole(node.taps)],
    ["Rejected payloads", whole(node.rejected)],
    ["Trouble", node.trouble.join("; ") || "none"],
    ["Connections", { href: linkTo.connections({ node: node.id }), text: "Show them" }],
  ];
}

$("#drain").addEventListener("click", async () => {
  const text =
    "It takes no more connections, asks its clients to reconnect elsewhere, and stops, as after SIGTERM.";
  if (!(await confirm(`Drain ${name}?`, text, "Drain"))) return;
  await act("drain", { node: name }, `${name} is draining`);
});

draw(picture);
watch("node", () => ({ name, mark: String(mark) }), draw);
