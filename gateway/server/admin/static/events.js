// The ticker: what happened in the cluster, newest first.

import { h, keyed, nothing } from "./dom.js";
import { clock, day } from "./format.js";
import { link } from "./page.js";

const KINDS = {
  up: ["good", "started"],
  ok: ["good", "is well again"],
  draining: ["warn", "is draining"],
  down: ["soft", "stopped"],
  lost: ["bad", "is lost"],
  deaf: ["bad", "is deaf"],
  degraded: ["warn", "is degraded"],
  slow: ["warn", "slow readers"],
  rejected: ["warn", "rejected"],
  gaps: ["warn", "gap"],
  handler_errors: ["bad", "handler failed"],
  repairs: ["soft", "repaired"],
};

function entry(event) {
  const [tone, word] = KINDS[event.kind] ?? ["soft", event.kind ?? ""];
  return h(
    "li",
    { class: "event", "data-testid": "event", "data-kind": event.kind },
    h("i", { class: `dot ${tone}`, "aria-hidden": "true" }),
    h(
      "div",
      {},
      h("p", {}, link("node", event.node), " ", h("strong", {}, word)),
      event.text ? h("p", { class: "soft break short", title: event.text }, event.text) : null,
    ),
    h("time", { datetime: new Date(event.at).toISOString(), title: day(event.at) }, clock(event.at)),
  );
}

export function drawEvents(list, events) {
  if (events.length) keyed(list, events, (event) => event.id, entry);
  else {
    const box = h("li", { class: "nothing" });
    nothing(
      box,
      "Nothing has happened",
      "Nodes that come and go, gaps, slow readers and rejected payloads show here.",
    );
    list.replaceChildren(box);
  }
}
