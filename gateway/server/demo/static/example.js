// The demo chat, on the same client that applications use.

import { asName, asRoom, isFirstTab, recall, remember, someName } from "./example-memory.js";
import { People, Typists } from "./example-people.js";
import {
  $,
  drawEntry,
  drawPerson,
  drawRoom,
  drawState,
  drawStats,
  drawTyping,
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
/** How many of our former connections we remember, and tell the others about: a crashed node's are listed for a while. */
const REMEMBERED_FORMER = 50;
const MOST_FORMER = 5;
/** Who types says so this often, in milliseconds; who hears it believes it a little longer. */
const TYPING_EVERY = 2500;
const page = document.body.dataset;
/** Rooms by name, in the order in which they were joined. */
const rooms = new Map();
const people = new People();
let active = null;
let gaps = 0;
/** The timer that keeps the figures of the connection current while somebody looks at them. */
let watching;

// ---- who we are, and where

/** A second tab is a second person, so that one can talk to oneself. */
const isFirst = await isFirstTab();
let name =
  asName(recall("sessionStorage", "name")) ||
  (isFirst && asName(recall("localStorage", "name"))) ||
  someName();

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
/** Whom the server knew us as before: an anonymous person is known by the connection alone. */
let former = recall("sessionStorage", "former") ?? [];
if (!Array.isArray(former)) former = [];
const isOwn = (id) => id === ownId() || former.includes(id);
const nameOf = (id) => (id === ownId() ? name : people.nameOf(id));

// ---- rooms

function enter(roomName) {
  const channel = client.channel(roomName);
  // What is only of the moment goes over a channel of its own, so that it never stands in the room's history.
  const signals = client.channel(`${roomName}~signals`);
  // What is said is kept beside the room as well, where the room itself keeps nothing.
  const kept = client.channel(`${roomName}~history`);
  const room = {
    name: roomName,
    channel,
    signals,
    kept,
    entries: [],
    unsent: [],
    unread: 0,
    presence: { count: 0, users: [] },
    typists: new Typists(2 * TYPING_EVERY, () => room === active && drawTypists()),
    typedAt: -TYPING_EVERY,
    off: [],
  };
  rooms.set(roomName, room);
  room.off = [
    channel.on("chat", (param, message) => hear(room, param, message)),
    kept.on("chat", (param, message) => hear(room, param, message)),
    channel.watchPresence((presence) => {
      room.presence = presence;
      if (presence.users) room.typists.keep(presence.users);
      if (room === active) drawPeople();
    }),
    channel.on("$gap", () => kept.position || missed(room)),
    kept.on("$gap", () => kept.position && missed(room)),
    signals.on("hello", (hello) => greeted(room, hello)),
    signals.on("typing", ({ user, name }) => {
      people.revive(user);
      meet({ [user]: name });
      room.typists.add(user);
    }),
  ];
  channel.join().then(
    () => loadHistory(room, channel),
    (error) => refused(room, error),
  );
  kept.join().then(
    () => loadHistory(room, kept),
    () => {},
  );
  signals.join().then(
    () => client.state === "open" && introduce(room),
    () => {},
  );
  show(roomName);
}

/** Say who we are, and learn who the others are: presence knows them by their ids alone. */
async function introduce(room) {
  const was = former.filter((id) => id !== ownId()).slice(-MOST_FORMER);
  const answer = await room.signals.request("hello", { was }).catch(() => null);
  if (answer) meet(answer.people);
}

function greeted(room, { user, name, was = [] }) {
  // A tab that was duplicated remembers the other one's connections as its own.
  former = former.filter((id) => id !== user);
  people.replace(was, user);
  people.meet({ [user]: name });
  drawPeople();
  // Who says they were us is wrong. Who has just come has not heard whom we were; one who tells whom they were has
  // been here, or answers as we do.
  if (was.includes(ownId()) || (!was.length && isStillListed(room))) void introduce(room);
}

/** A gap in the room is none where what is kept beside it tells everything. */
function missed(room) {
  gaps++;
  add(room, { notice: AWAY, time: Date.now() });
}

function meet(newcomers) {
  if (people.meet(newcomers)) drawPeople();
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
  room.signals.leave().catch(() => {});
  room.kept.leave().catch(() => {});
  forget(room);
}

function refused(room, error) {
  if (!rooms.has(room.name) || error.code === "aborted") return;
  forget(room);
  toast(`Could not join ${room.name}: ${error.message}`);
}

function forget(room) {
  for (const off of room.off) off();
  room.typists.clear();
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
  closeSides($("title"));
}

/** Not every channel keeps a history; where there is none the room begins empty. */
async function loadHistory(room, channel) {
  const { messages } = await channel.history({ limit: 100 }).catch(() => ({ messages: [] }));
  const past = messages
    .filter(({ cmd }) => cmd === "chat")
    .map((message) => asEntry(message.param, message))
    .filter((entry) => !isKnown(room, entry));
  if (!past.length) return;
  room.entries = [...past, ...room.entries];
  if (room === active) drawChat();
}

// ---- messages

/** The same is said in a room and in what keeps it; the server's time tells that it is the same. */
const isKnown = (room, { from, time, text }) =>
  room.entries.some((known) => known.time === time && known.from === from && known.text === text);

function asEntry(param, { from = "" }) {
  const { user = "", text = "", time } = param ?? {};
  if (from && user) people.meet({ [from]: String(user) });
  return {
    from: from || String(user),
    user: String(user || nameOf(from)),
    text: String(text),
    time: Number.isFinite(new Date(time).getTime()) && time ? Number(new Date(time)) : Date.now(),
    own: isOwn(from),
  };
}

function hear(room, param, message) {
  const { from } = message;
  const before = nameOf(from);
  const entry = asEntry(param, message);
  if (isKnown(room, entry)) return;
  people.revive(from);
  add(room, entry);
  room.typists.delete(from);
  if (nameOf(from) !== before) drawPeople();
  if (room !== active || document.hidden) {
    room.unread++;
    drawRooms();
  }
}

function add(room, entry) {
  const before = room.entries.at(-1);
  if (entry.notice && (!before || before.notice)) return;
  const follow = isAtEnd() || entry.own;
  // What was missed may come behind what is said already.
  const later = entry.notice ? -1 : room.entries.findIndex(({ time }) => time > entry.time);
  room.entries.splice(later < 0 ? room.entries.length : later, 0, entry);
  if (room.entries.length > KEPT_MESSAGES) room.entries.shift();
  if (room !== active) return;
  if (later >= 0) return drawChat(follow);
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

function drawChat(follow = true) {
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
  if (follow) scrollToEnd();
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
  const { count = 0, users = [] } = active?.presence ?? {};
  // Who came back from a crashed node is still listed as who they were, for as long as the node's lease lasts.
  const ids = new Set(users.filter((id) => !people.isReplaced(id) && (id === ownId() || !isOwn(id))));
  const gone = users.length - ids.size;
  if (active && ownId()) ids.add(ownId());
  const present = [...ids].map((id) => ({ id, name: nameOf(id), own: id === ownId() }));
  present.sort((a, b) => b.own - a.own || a.name.localeCompare(b.name));
  const total = Math.max(count - gone, present.length);
  const rest = total - present.length;
  $("online").replaceChildren(...present.map(drawPerson));
  if (rest) $("online").append(element("li", { className: "rest" }, `and ${rest} more`));
  $("online-count").textContent = $("people-count").textContent = active ? String(total) : "";
  drawTypists();
}

function drawTypists() {
  drawTyping((active?.typists.users ?? []).filter((id) => id !== ownId()).map(nameOf));
}

function drawName() {
  // What somebody is typing there stays, whatever happens to the connection meanwhile.
  if (document.activeElement !== $("name")) $("name").value = name;
  paintAvatar($("own-avatar"), ownId() || name, name);
}

// ---- the connection

function changed(change) {
  page.state = change.state;
  drawState(change);
  drawUnsentOf(active);
}

/** Whether the others see somebody here whom we were. */
const isStillListed = (room) =>
  (room.presence.users ?? []).some((id) => id !== ownId() && former.includes(id));

/** Remember whom the server knows us as, for when it knows us as somebody else. */
function rememberId() {
  former = [...former.filter((id) => id !== ownId()), ownId()].slice(-REMEMBERED_FORMER);
  remember("sessionStorage", "former", former);
}

function welcomed() {
  rememberId();
  // Without a room the server picks one; a person who left all of them did not ask for it.
  for (const channel of client.welcome.channels) {
    if (!rooms.has(channel)) client.send("leave-room", { room: channel });
  }
  for (const room of rooms.values()) void introduce(room);
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

/** Whoever opened a drawer gets the focus back, unless it goes elsewhere. */
let opener = null;

function closeSides(next = opener) {
  const open = document.querySelector(".side.open");
  if (!open) return;
  setDrawer(open, false);
  // Not shown any more on a screen that has become wide.
  if (next?.checkVisibility()) next.focus();
  else $("title").focus();
}

function openSide(side, button) {
  closeSides();
  opener = button;
  setDrawer(side, true);
  side.querySelector(".close-side").focus();
}

/** A drawer is a dialogue: what lies behind it takes neither focus nor clicks, and is not read out. */
function setDrawer(side, isOpen) {
  side.classList.toggle("open", isOpen);
  $("shade").hidden = !isOpen;
  for (const behind of document.querySelectorAll("main, .side")) behind.inert = isOpen && behind !== side;
  side.setAttribute("role", isOpen ? "dialog" : side.dataset.role);
  side.ariaModal = isOpen ? "true" : null;
  opener?.setAttribute("aria-expanded", String(isOpen));
}

function rename() {
  const wanted = asName($("name").value);
  if (wanted && wanted !== name) {
    name = wanted;
    rememberName();
    // The name belongs to the connection.
    client.reconnect();
    drawPeople();
  }
  $("name").value = name;
  drawName();
}

function rememberName() {
  remember("sessionStorage", "name", name);
  if (isFirst) remember("localStorage", "name", name);
}

/** Let the others know; what they would hear too late is not worth sending. */
function typed() {
  if (!active || client.state !== "open" || !$("text").value.trim()) return;
  if (performance.now() - active.typedAt < TYPING_EVERY) return;
  active.typedAt = performance.now();
  active.signals.send("typing");
}

/** The same room in a window beside this one. */
function openBeside() {
  const width = Math.max(420, Math.floor(screen.availWidth / 2));
  const place = `popup,width=${width},height=${screen.availHeight},left=${screen.availWidth - width},top=0`;
  window.open(location.href, "", `noopener,${place}`);
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
  closeSides($("text"));
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
  active.typedAt = -TYPING_EVERY;
  say(active, text);
  scrollToEnd();
});
$("text").addEventListener("input", fitText);
$("text").addEventListener("input", typed);
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
$("reconnect").addEventListener("click", () => client.reconnect());
$("beside").addEventListener("click", openBeside);
$("about").addEventListener("toggle", ({ newState }) => {
  clearInterval(watching);
  if (newState !== "open") return;
  // Somebody's own rules may keep nothing.
  const isKept = active?.channel.position || active?.kept.position;
  $("promise").textContent =
    `Break it, and watch it come back${isKept ? " with everything that was said meanwhile" : ""}.`;
  const draw = () => drawStats(client.welcome, { ...client.stats(), gaps });
  draw();
  watching = setInterval(draw, 500);
});
$("share").addEventListener("click", () =>
  navigator.clipboard.writeText(location.href).then(
    () => toast("The link to this room is copied."),
    () => toast("The browser did not let us copy the link."),
  ),
);
for (const button of document.querySelectorAll(".open-side")) {
  button.addEventListener("click", () => openSide($(button.getAttribute("aria-controls")), button));
}
for (const button of document.querySelectorAll(".close-side"))
  button.addEventListener("click", () => closeSides());
$("shade").addEventListener("click", () => closeSides());
// On a wider screen they are no drawers.
for (const width of ["46rem", "62rem"])
  matchMedia(`(max-width: ${width})`).addEventListener("change", () => closeSides());
document.addEventListener("keydown", (event) => event.key === "Escape" && closeSides());
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !active?.unread) return;
  active.unread = 0;
  drawRooms();
});

rememberName();
drawName();
const wanted = asRoom(page.channel) || "lobby";
const before = recall("sessionStorage", "rooms");
for (const room of new Set([wanted, ...(Array.isArray(before) ? before : [])].map(asRoom))) {
  if (room && !rooms.has(room)) enter(room);
}
show(wanted);
