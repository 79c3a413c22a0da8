// One channel, across all nodes.

import { compose } from "./compose.js";
import { $, h, keyed, nothing, say } from "./dom.js";
import { facts } from "./facts.js";
import { clock, day, lasted, plural, short, whole } from "./format.js";
import { watch } from "./live.js";
import { act, link, linkTo, missing, name, picture } from "./page.js";

const MOST_USERS = 100;

function draw({ missing: text, channel, rule, history, rates }) {
  missing(text);
  if (!channel) return;
  say($("#members"), whole(channel.members));
  say($("#online"), whole(channel.online));
  say($("#rate"), short(rates?.[name] ?? 0));
  say($("#kept"), history ? plural(rule.history, "message") : "None");
  drawThrough(channel);
  drawUsers(channel);
  drawRule(rule);
  drawHistory(history);
}

function drawThrough({ nodes, members, silent }) {
  const box = $("#through");
  if (!members) return nothing(box, "Nobody", "The channel has no member: a message to it reaches no one.");
  const rows = Object.entries(nodes).sort(([a], [b]) => (a < b ? -1 : 1));
  const text = `${plural(members, "connection")} through ${plural(rows.length, "node")}`;
  const missed = silent.length ? ` · no answer from ${silent.join(", ")}` : "";
  const most = Math.max(1, ...rows.map(([, count]) => count));
  box.replaceChildren(
    h("p", { class: "soft" }, text, missed),
    h(
      "ul",
      { class: "bars" },
      ...rows.map(([node, count]) =>
        h(
          "li",
          {},
          link("node", node),
          h("meter", { min: 0, max: most, value: count, "aria-label": `Members on ${node}` }),
          h("b", {}, whole(count)),
        ),
      ),
    ),
    h("p", {}, h("a", { href: linkTo.connections({ channel: name }) }, "Show the connections")),
  );
}

function drawUsers({ users, online }) {
  const list = $("#users");
  if (!users.length) {
    const box = h("li", { class: "nothing" });
    nothing(box, "Nobody is online here");
    return list.replaceChildren(box);
  }
  const anonymous = (user) => Number(user.includes("~"));
  const shown = users.toSorted((a, b) => anonymous(a) - anonymous(b)).slice(0, MOST_USERS);
  const rest = online - shown.length;
  keyed(
    list,
    rest > 0 ? [...shown, ""] : shown,
    (user) => user,
    (user) =>
      user
        ? h(
            "li",
            { class: "chip", "data-testid": "online-user" },
            link(user.includes("~") ? "connection" : "user", user),
          )
        : h("li", { class: "soft" }, `and ${whole(rest)} more`),
  );
}

function drawRule(rule) {
  facts($("#rule"), [
    ["Rule", rule.match === "*" && !rule.history ? "none: the defaults" : rule.match],
    ["History", rule.history ? `${plural(rule.history, "message")} for ${lasted(rule.ttl * 1000)}` : "none"],
    ["May join", rule.join ?? "anyone"],
    ["May send", rule.send ?? "anyone"],
    ["Slow readers", rule.slow ?? "disconnect"],
    ["Presence", rule.presence ? "told to members" : "not told"],
  ]);
}

function drawHistory(history) {
  const list = $("#history");
  if (!history?.messages.length) {
    const box = h("li", { class: "nothing" });
    nothing(
      box,
      history ? "Nothing is kept at the moment" : "This channel keeps no history",
      history ? "" : "A channel rule with history keeps messages.",
    );
    return list.replaceChildren(box);
  }
  keyed(list, history.messages, (message) => `${history.epoch} ${message.offset}`, makeMessage);
}

function makeMessage({ at, cmd, from, offset, param }) {
  return h(
    "li",
    { "data-testid": "message" },
    h(
      "p",
      { class: "row" },
      h("strong", { class: "clip" }, cmd),
      from ? h("span", { class: "soft clip" }, "from ", link("user", from)) : null,
      h("span", { class: "soft push", title: at ? day(at) : "" }, `#${offset}${at ? ` · ${clock(at)}` : ""}`),
    ),
    h("pre", { class: "json" }, JSON.stringify(param, null, 2)),
  );
}

compose((cmd, param) => act("send", { kind: "channel", name, cmd, param }, `Sent to ${name}`));

draw(picture);
watch("channel", () => ({ name }), draw);
