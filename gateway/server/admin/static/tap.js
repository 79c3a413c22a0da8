// Live traffic of the whole cluster, as much of it as a person can look at.

import { $, h, icon, nothing, say } from "./dom.js";
import { bytes, clock, day, whole } from "./format.js";
import { again, rest, tap } from "./live.js";
import { link, query } from "./page.js";

const MOST_ROWS = 300;
const MOST_KEPT = 5000;
const PAUSE = 300;
const form = $("#filters");
const log = $("#log");
const names = ["direction", "channel", "user", "connection", "cmd"];

let kept = [];
let shown = 0;
let missed = 0;
let isPaused = false;
/** What waits because somebody is about to press a row, which must not move then. */
let held = [];

for (const name of names) form.elements[name].value = query[name] ?? "";

function count() {
  say(
    $("#counts"),
    `${whole(shown)} shown${held.length ? `, ${whole(held.length)} held while you look` : ""}`,
  );
  say($("#missed"), missed ? `${whole(missed)} not shown` : "");
}

function empty() {
  $("#nothing").hidden = log.childElementCount > 0;
  if (log.childElementCount) return;
  if (isPaused) nothing($("#nothing"), "Paused", "Nothing is copied from any node meanwhile.");
  else nothing($("#nothing"), "Listening", "Messages that fit show here as they are sent, on whatever node.");
}

const WAYS = { in: ["in", "from a client"], out: ["out", "to clients"] };

function where({ direction, kind, name, connection }) {
  if (direction === "in")
    return h(
      "span",
      {},
      link("connection", connection),
      name ? h("span", { class: "soft" }, " → ") : null,
      name ? link("channel", name) : null,
    );
  if (kind === "all") return h("span", {}, "everyone");
  return h(
    "span",
    {},
    h("span", { class: "soft" }, kind, " "),
    ["channel", "user", "connection"].includes(kind) ? link(kind, name) : name,
  );
}

function preview(message) {
  const text = message.cut ?? JSON.stringify(message.param) ?? "";
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

function row(message) {
  const [name, text] = WAYS[message.direction] ?? WAYS.out;
  const made = h(
    "li",
    { "data-testid": "traffic", "data-direction": message.direction },
    h(
      "details",
      {},
      h(
        "summary",
        {},
        h("time", { title: day(message.at) }, clock(message.at)),
        h("span", { class: `way ${name}`, title: text }, icon(name), h("span", { class: "hidden" }, text)),
        h("strong", { class: "clip cmd" }, message.cmd),
        h("span", { class: "clip where" }, where(message)),
        h("code", { class: "clip preview" }, preview(message)),
        h("span", { class: "soft size" }, bytes(message.size)),
      ),
    ),
  );
  $("details", made).addEventListener("toggle", () => expand(made, message), { once: true });
  return made;
}

function expand(made, message) {
  const { cut, param, ...about } = message;
  const facts = [
    ["Seen by", about.node || "the node that delivered it"],
    ["From", about.from ?? about.user],
    ["Connection", about.connection],
    ["Size", `${whole(about.size)} bytes`],
  ].filter(([, value]) => value);
  $("details", made).append(
    h(
      "dl",
      { class: "facts inline" },
      ...facts.map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", { class: "break" }, value))),
    ),
    h("pre", { class: "json" }, cut === undefined ? JSON.stringify(param, null, 2) : `${cut}…`),
  );
}

function hear(cmd, param) {
  if (cmd !== "traffic" || isPaused) return;
  missed += param.missed;
  kept = [...kept, ...param.messages].slice(-MOST_KEPT);
  held.push(...param.messages);
  if (held.length > MOST_KEPT) missed += held.splice(0, held.length - MOST_KEPT).length;
  if (log.matches(":hover, :focus-within")) count();
  else showHeld();
}

function showHeld() {
  shown += held.length;
  const rows = held.splice(0).slice(-MOST_ROWS);
  log.prepend(...rows.map(row).reverse());
  while (log.childElementCount > MOST_ROWS) log.lastElementChild.remove();
  count();
  empty();
}

log.addEventListener("pointerleave", () => log.matches(":focus-within") || showHeld());

const filter = () => Object.fromEntries(names.map((name) => [name, form.elements[name].value.trim()]));

function clear() {
  kept = [];
  held = [];
  shown = 0;
  missed = 0;
  log.replaceChildren();
  count();
  empty();
}

let due;
form.addEventListener("input", () => {
  clearTimeout(due);
  due = setTimeout(() => {
    const wanted = Object.entries(filter()).filter(([, value]) => value);
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams(wanted)}`);
    clear();
    if (!isPaused) again();
  }, PAUSE);
});
form.addEventListener("submit", (event) => event.preventDefault());

$("#pause").addEventListener("click", () => {
  isPaused = !isPaused;
  const button = $("#pause");
  button.setAttribute("aria-pressed", String(isPaused));
  button.replaceChildren(icon(isPaused ? "play" : "pause"), h("span", {}, isPaused ? "Go on" : "Pause"));
  if (isPaused) rest();
  else tap(filter, hear);
  empty();
});
$("#clear").addEventListener("click", clear);
$("#export").addEventListener("click", () => {
  const lines = kept.map((message) => `${JSON.stringify(message)}\n`);
  const address = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  h("a", {
    href: address,
    download: `traffic-${new Date().toISOString().replaceAll(":", "-")}.ndjson`,
  }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
});

count();
empty();
tap(filter, hear);
