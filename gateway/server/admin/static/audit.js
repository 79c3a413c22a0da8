// What operators did.

import { $, h } from "./dom.js";
import { day } from "./format.js";
import { list } from "./list.js";
import { link } from "./page.js";

const LINKED = ["connection", "user", "node", "channel"];

function target({ target: text = "" }) {
  const [kind, ...rest] = text.split(" ");
  const name = rest.join(" ");
  return LINKED.includes(kind) && name
    ? h("span", {}, h("span", { class: "soft" }, kind, " "), link(kind, name))
    : text || "–";
}

function details({ details: told = {} }) {
  const { failed, ...rest } = told;
  const text = Object.entries(rest)
    .map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
  return h(
    "span",
    { class: "break" },
    failed ? h("strong", { class: "bad-text" }, `failed: ${failed} `) : null,
    text,
  );
}

/** Show who was not let in: strangers, so apart from what operators did. */
function showRefusals({ refusals = [] }) {
  $("#refusals").hidden = refusals.length === 0;
  $("#refused").replaceChildren(
    ...refusals.map(({ at, who, text, node }) =>
      h(
        "li",
        {},
        h("span", { class: "soft number" }, day(at)),
        h("span", { class: "mono" }, who ?? ""),
        h("span", {}, text ?? ""),
        link("node", node),
      ),
    ),
  );
}

list("audit", {
  heard: showRefusals,
  columns: [
    { label: "When", cell: (row) => day(row.at), class: "number left" },
    { label: "Who", cell: (row) => row.who ?? "", class: "mono clip" },
    { label: "Action", cell: (row) => h("strong", {}, row.action ?? "") },
    { label: "To whom", cell: target, class: "break wide" },
    { label: "Details", cell: details, class: "wide" },
    { label: "Node", cell: (row) => link("node", row.node), class: "clip" },
  ],
  key: (row) => row.id,
  noun: "action",
  empty: [
    "No operator has done anything yet",
    "Every message, disconnect, join, leave, drain and log-in is noted here.",
  ],
});
