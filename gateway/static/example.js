// The demo chat, on the same client that applications use.

import { asName, asRoom, recall, remember, someName } from "./example-memory.js";
import {
  $,
  drawEntry,
  drawPerson,
  drawRoom,
  drawState,
  drawUnsent,
  element,
  paintAvatar,
  toast,
} from "./example-view.js";
import { Client } from "./gateway.mjs";

const KEPT_MESSAGES = 500;
/** A person who wrote something wants it sent, even after a longer outage. */
const PATIENCE = 5 * 60_000;
const AWAY = "You were away. Messages may be missing here.";
const page = document.body.dataset;
/** Rooms by name, in the order in which they were joined. */
const rooms = new Map();
/** Names of people by user id, as far as they have said something. */
const names = new Map();
let active = null;

// ---- who we are, and where

let name = asName(recall("localStorage", "name")) || someName();

function socketUrl() {
  const url = new URL(page.socket, document.baseURI);
  const token = new URLSearchParams(location.search).get("token");
  const [first] = rooms.keys();
  if (first) url.searchParams.set("ch", first);
  if (token) url.searchParams.set("token", token);
  url.searchParams.set("name", name);
  return url.href;
}

const client = new Client(socketUrl, { queue: { age: PATIENCE } });

const ownId = () => client.welcome?.user ?? "";
const nameOf = (id) =>
  id === ownId() ? name : (names.get(id) ?? (id ? `Guest ${id.slice(-4)}` : "Somebody"));

// ---- rooms

function enter(roomName) {
  const channel = client.channel(roomName);
  const room = {
    name: roomName,
    channel,
    entries: [],
    unsent: [],
    unread: 0,
    online: new Set(),
    // A crowd is only counted.
    listed: false,
    count: 0,
    off: [],
  };
  rooms.set(roomName, room);
  room.off = [
    channel.on("chat", (param, message) => hear(room, param, message)),
    channel.on("online-update", ({ userID, connected }) => {
      if (connected) room.online.add(userID);
      else room.online.delete(userID);
      if (room.listed) counted(room, room.online.size);
    }),
    channel.on("online-count", ({ count }) => counted(room, count)),
    channel.on("$gap", () => add(room, { notice: AWAY, time: Date.now() })),
  ];
  channel.join().then(
    () => Promise.allSettled([loadPresence(room), loadHistory(room)]),
    (error) => refused(room, error),
  );
  show(roomName);
}

/** The demo's own command puts us in; the client's join() brings us back after every reconnect. */
function join(roomName) {
  if (!rooms.has(roomName)) {
    enter(roomName);
    client.request("join-room", { room: roomName }).catch(() => {});
  }
  show(roomName);
}

function leave(room) {
  client.request("leave-room", { room: room.name }).catch(() => {});
  room.channel.leave().catch(() => {});
  forget(room);
}

function refused(room, error) {
  if (!rooms.has(room.name) || error.code === "aborted") return;
  forget(room);
  toast(`Could not join ${room.name}: ${error.message}`);
}

function forget(room) {
  for (const off of room.off) off();
  rooms.delete(room.name);
  if (active === room) show([...rooms.keys()].at(-1));
  else drawRooms();
}

function show(roomName) {
  active = rooms.get(roomName) ?? null;
  if (active) active.unread = 0;
  const url = new URL(location.href);
  if (active) url.searchParams.set("ch", active.name);
  else url.searchParams.delete("ch");
  history.replaceState(null, "", url);
  drawRooms();
  drawChat();
  drawPeople();
  closeSides();
}

async function loadPresence(room) {
  const { count, users } = await room.channel.presence();
  room.listed = users !== undefined;
  room.online = new Set(users);
  counted(room, count);
}

/** Not every room keeps a history; where there is none this rejects, and the room begins empty. */
async function loadHistory(room) {
  const { messages } = await room.channel.history({ limit: 100 });
  const known = new Set(room.entries.map(({ offset }) => offset));
  const past = messages.filter(({ cmd, offset }) => cmd === "chat" && !known.has(offset));
  room.entries = [...past.map((message) => asEntry(message.param, message)), ...room.entries];
  if (room === active) drawChat();
}

function counted(room, count) {
  room.count = Math.max(count, room.online.size);
  if (room === active) drawPeople();
}

// ---- messages

function asEntry(param, { from = "", offset }) {
  const { user = "", text = "", time } = param ?? {};
  if (from && user) names.set(from, String(user));
  return {
    from: from || String(user),
    user: String(user || nameOf(from)),
    text: String(text),
    time: Number.isFinite(new Date(time).getTime()) && time ? Number(new Date(time)) : Date.now(),
    own: from === ownId(),
    offset,
  };
}

function hear(room, param, message) {
  const { from } = message;
  const wasKnown = names.get(from);
  add(room, asEntry(param, message));
  if (names.get(from) !== wasKnown) drawPeople();
  if (room !== active || document.hidden) {
    room.unread++;
    drawRooms();
  }
}

function add(room, entry) {
  const before = room.entries.at(-1);
  if (entry.notice && (!before || before.notice)) return;
  room.entries.push(entry);
  if (room.entries.length > KEPT_MESSAGES) room.entries.shift();
  if (room !== active) return;
  const follow = isAtEnd() || entry.own;
  const list = $("messages");
  list.append(...drawEntry(entry, before));
  while (list.children.length > KEPT_MESSAGES) list.firstElementChild.remove();
  $("empty").hidden = true;
  if (follow) scrollToEnd();
  else $("newer").hidden = false;
}

async function say(room, text, unsent = { text }) {
  unsent.problem = "";
  if (!room.unsent.includes(unsent)) room.unsent.push(unsent);
  drawUnsentOf(room);
  try {
    await room.channel.request("chat", { text }, { timeout: PATIENCE });
    discard(room, unsent);
  } catch (error) {
    const lost = error.code === "closed" || error.code === "timeout";
    unsent.problem = lost
      ? "The connection was lost; this may not have arrived."
      : `Not sent: ${error.message}`;
    drawUnsentOf(room);
  }
}

function discard(room, unsent) {
  room.unsent = room.unsent.filter((one) => one !== unsent);
  drawUnsentOf(room);
}

// ---- drawing

const isAtEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 80;

function scrollToEnd() {
  $("scroll").scrollTop = $("scroll").scrollHeight;
  $("newer").hidden = true;
}

function drawRooms() {
  const draw = (room) =>
    drawRoom(room, room === active, { show: () => show(room.name), leave: () => leave(room) });
  $("rooms").replaceChildren(...[...rooms.values()].map(draw));
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  $("unread-elsewhere").hidden = ![...rooms.values()].some((room) => room !== active && room.unread);
  document.title = `${unread ? `(${unread}) ` : ""}${active ? `${active.name} · ` : ""}Gateway chat`;
  remember("sessionStorage", "rooms", [...rooms.keys()]);
}

function drawChat() {
  $("title").textContent = active?.name ?? "No room";
  $("share").hidden = !active || !navigator.clipboard;
  const entries = active?.entries ?? [];
  $("messages").replaceChildren(...entries.flatMap((entry, index) => drawEntry(entry, entries[index - 1])));
  $("empty").hidden = entries.length > 0;
  $("empty-title").textContent = active ? `This is ${active.name}` : "You are in no room";
  $("empty-text").textContent = active
    ? "Nothing was said here yet. Say hello, or open this page in a second window."
    : "Join one to talk to whoever is there.";
  for (const control of $("composer").elements) control.disabled = !active;
  $("text").placeholder = active ? `Message ${active.name}` : "Join a room first";
  drawUnsentOf(active);
  scrollToEnd();
}

function drawUnsentOf(room) {
  if (room !== active) return;
  const draw = (unsent) =>
    drawUnsent(unsent, {
      connected: client.state === "open",
      retry: () => say(room, unsent.text, unsent),
      discard: () => discard(room, unsent),
    });
  const follow = isAtEnd();
  $("outbox").replaceChildren(...(room?.unsent ?? []).map(draw));
  if (follow) scrollToEnd();
}

function drawPeople() {
  const ids = new Set(active?.online);
  if (active && ownId()) ids.add(ownId());
  const people = [...ids].map((id) => ({ id, name: nameOf(id), own: id === ownId() }));
  people.sort((a, b) => b.own - a.own || a.name.localeCompare(b.name));
  const count = Math.max(active?.count ?? 0, people.length);
  const rest = count - people.length;
  $("online").replaceChildren(...people.map(drawPerson));
  if (rest) $("online").append(element("li", { className: "rest" }, `and ${rest} more`));
  $("online-count").textContent = $("people-count").textContent = active ? String(count) : "";
}

function drawName() {
  $("name").value = name;
  paintAvatar($("own-avatar"), ownId() || name, name);
}

// ---- the connection

function changed(change) {
  page.state = change.state;
  drawState(change);
  drawUnsentOf(active);
}

function welcomed() {
  // Without a room the server picks one; a person who left all of them did not ask for it.
  for (const channel of client.welcome.channels) {
    if (!rooms.has(channel)) client.send("leave-room", { room: channel });
  }
  for (const room of rooms.values()) loadPresence(room).catch(() => {});
  drawName();
  drawPeople();
}

client.on("state", changed);
client.on("open", welcomed);
client.on("error", ({ code, message, channel }) => {
  // What is about a room is told where it is asked for.
  if (code !== "closed" && !channel) toast(message);
});

// ---- what the person does

function closeSides() {
  const open = document.querySelector(".side.open");
  open?.classList.remove("open");
  $("shade").hidden = true;
  if (open?.contains(document.activeElement)) $("title").focus();
}

function openSide(side) {
  closeSides();
  side.classList.add("open");
  $("shade").hidden = false;
  side.querySelector(".close-side").focus();
}

function rename() {
  const wanted = asName($("name").value);
  if (wanted && wanted !== name) {
    name = wanted;
    remember("localStorage", "name", name);
    // The name belongs to the connection.
    client.reconnect();
    drawPeople();
  }
  drawName();
}

function fitText() {
  const { style } = $("text");
  style.height = "0";
  // The border is not part of scrollHeight.
  style.height = `${$("text").scrollHeight + 2}px`;
}

$("name").addEventListener("change", rename);
$("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  rename();
  closeSides();
  $("text").focus();
});
$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = asRoom($("room").value);
  if (!wanted) return $("room").focus();
  $("room").value = "";
  join(wanted);
  $("text").focus();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !active) return;
  $("text").value = "";
  fitText();
  say(active, text);
  scrollToEnd();
});
$("text").addEventListener("input", fitText);
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("scroll").addEventListener("scroll", () => {
  if (isAtEnd()) $("newer").hidden = true;
});
$("newer").addEventListener("click", scrollToEnd);
$("banner-action").addEventListener("click", () => client.connect());
$("share").addEventListener("click", () =>
  navigator.clipboard.writeText(location.href).then(
    () => toast("The link to this room is copied."),
    () => toast("The browser did not let us copy the link."),
  ),
);
for (const button of document.querySelectorAll(".open-side")) {
  button.addEventListener("click", () => openSide($(button.getAttribute("aria-controls"))));
}
for (const button of document.querySelectorAll(".close-side")) button.addEventListener("click", closeSides);
$("shade").addEventListener("click", closeSides);
document.addEventListener("keydown", (event) => event.key === "Escape" && closeSides());
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !active?.unread) return;
  active.unread = 0;
  drawRooms();
});

remember("localStorage", "name", name);
drawName();
const wanted = asRoom(page.channel) || "lobby";
const before = recall("sessionStorage", "rooms");
for (const room of new Set([wanted, ...(Array.isArray(before) ? before : [])].map(asRoom))) {
  if (room && !rooms.has(room)) enter(room);
}
show(wanted);
