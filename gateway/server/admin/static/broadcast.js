// Write to a channel, a user, a connection or everyone, and see who would get it.

import { compose, readJson } from "./compose.js";
import { $, h, icon, say } from "./dom.js";
import { plural, whole } from "./format.js";
import { watch } from "./live.js";
import { act, confirm, copy, query } from "./page.js";
import { snippets } from "./snippets.js";

const PAUSE = 250;
const LABELS = {
  channel: ["Channel", "lobby"],
  user: ["User", "42"],
  connection: ["Connection", "node~0123456789"],
};
const form = $("#compose");
const fields = form.elements;

const kind = () => fields.kind.value;
const name = () => (kind() === "all" ? "" : fields.name.value.trim());
let count = 0;

function drawReach(answer) {
  const box = $("#reach");
  count = answer.count ?? 0;
  box.dataset.count = String(count);
  const nodes = Object.entries(answer.nodes ?? {}).filter(([, held]) => held);
  const through = nodes.length ? ` through ${plural(nodes.length, "node")}` : "";
  const kept = answer.history ? " It is kept in the channel's history." : "";
  box.dataset.tone = count ? "good" : "soft";
  box.replaceChildren(
    icon(count ? "users" : "empty"),
    h(
      "div",
      {},
      h(
        "strong",
        {},
        count ? `Reaches ${plural(count, "connection")}${through}.` : "Reaches nobody at the moment.",
      ),
      h("span", { class: "soft" }, kept),
    ),
  );
  for (const [node, held] of nodes)
    box.lastChild.append(h("span", { class: "chip" }, `${node} ${whole(held)}`));
}

const receivers = () => ({ kind: kind(), name: name() });
const isNamed = () => kind() === "all" || name() !== "";

function retarget() {
  const [label, example] = LABELS[kind()] ?? ["", ""];
  $("#name-field").hidden = kind() === "all";
  say($("#name-label"), label);
  fields.name.placeholder = example;
  if (isNamed()) watch("receivers", receivers, drawReach);
  else drawReach({ count: 0 });
}

function drawSnippets() {
  const found = readJson(fields.param, $("#param-check"));
  const message = {
    kind: kind(),
    name: name() || "NAME",
    cmd: fields.cmd.value.trim() || "notice",
    param: found?.[0] ?? null,
  };
  $("#snippets").replaceChildren(
    ...snippets(message).map(([title, text, language]) => {
      const button = h(
        "button",
        { type: "button", class: "quiet copy", "aria-label": `Copy ${title}` },
        icon("copy"),
        h("span", {}, "Copy"),
      );
      button.addEventListener("click", () => copy(text, button));
      return h(
        "section",
        { "data-snippet": language },
        h("header", {}, h("h3", {}, title), button),
        h("pre", { tabindex: "0" }, h("code", {}, text)),
      );
    }),
  );
}

let due;
form.addEventListener("input", () => {
  drawSnippets();
  clearTimeout(due);
  due = setTimeout(retarget, PAUSE);
});

compose(async (cmd, param) => {
  if (!isNamed()) return fields.name.focus();
  const text = `${plural(count, "connection")} of the cluster get it at once.`;
  if (kind() === "all" && !(await confirm("Send to everyone?", text, "Send to everyone"))) return;
  await act("send", { kind: kind(), name: name(), cmd, param }, ({ offset }) =>
    offset ? `Sent as #${offset}` : "Sent",
  );
});

if (query.kind && [...fields.kind].some((choice) => choice.value === query.kind))
  fields.kind.value = query.kind;
if (query.name) fields.name.value = query.name;
retarget();
drawSnippets();
