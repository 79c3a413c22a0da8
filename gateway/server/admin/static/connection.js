// One connection, on whatever node.

import { compose } from "./compose.js";
import { $, h, icon, keyed, nothing, say } from "./dom.js";
import { facts } from "./facts.js";
import { day, lasted, whole } from "./format.js";
import { again, watch } from "./live.js";
import { act, confirm, link, linkTo, missing, name, picture } from "./page.js";

const PROTOCOLS = { "": "plain JSON, without a subprotocol" };

function draw({ missing: text, connection, agent, protocol, received, is_behind: isBehind, expires, now }) {
  missing(text);
  if (!connection) return;
  say($("#age"), lasted(now - connection.started));
  say($("#received"), whole(received));
  say($("#channel-count"), whole(connection.channels.length));
  say($("#behind"), isBehind ? "Too slowly" : "In time");
  facts($("#facts"), [
    [
      "User",
      connection.anonymous ? "anonymous" : { text: connection.user, href: linkTo.user(connection.user) },
    ],
    ["Name", connection.name || "–"],
    ["Node", { text: connection.node, href: linkTo.node(connection.node) }],
    ["Address", connection.remote || "–"],
    ["Agent", agent || "–"],
    ["Protocol", PROTOCOLS[protocol] ?? protocol],
    ["Connected", day(connection.started)],
    ["Token ends", expires ? day(expires) : "never"],
    ["Traffic", { text: "Tap it", href: linkTo.tap({ connection: connection.id }) }],
  ]);
  drawChannels(connection.channels);
}

function drawChannels(channels) {
  if (channels.length) return keyed($("#channels"), channels, (channel) => channel, makeChannel);
  const box = h("li", { class: "nothing" });
  nothing(box, "In no channel");
  $("#channels").replaceChildren(box);
}

function makeChannel(channel) {
  const leave = async () => {
    await act("leave", { id: name, channel }, `Left ${channel}`);
    again();
  };
  const button = h(
    "button",
    { type: "button", "aria-label": `Leave ${channel}`, "data-testid": "leave", onclick: leave },
    icon("close"),
  );
  return h("li", { class: "chip", "data-testid": "channel" }, link("channel", channel), button);
}

$("#join").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("#join-name");
  const channel = field.value.trim();
  if (channel && (await act("join", { id: name, channel }, `Joined ${channel}`))) field.value = "";
  again();
});

compose((cmd, param) => act("send", { kind: "connection", name, cmd, param }, "Sent"));

$("#reconnect").addEventListener("click", async () => {
  await act("disconnect", { id: name, reconnect: true }, "Disconnected; it may come back under a new id");
  again();
});
$("#disconnect").addEventListener("click", async () => {
  const text = "It is closed with 4410, and the client is told not to come back.";
  if (!(await confirm("Disconnect for good?", text, "Disconnect"))) return;
  await act("disconnect", { id: name }, "Disconnected for good");
  again();
});

draw(picture);
watch("connection", () => ({ name }), draw);
