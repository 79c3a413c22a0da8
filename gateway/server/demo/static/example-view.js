// How the demo chat looks: DOM in, DOM out. Whatever came from somebody is set as text, never as markup.

const GROUP_GAP = 5 * 60_000;
const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g;
const ONLY_EMOJI = /^(?:\p{Extended_Pictographic}(?:\ufe0f|\u200d|\p{Emoji_Modifier})*\s*){1,4}$/u;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export const $ = (id) => document.getElementById(id);

/** Make an element: `properties` are assigned, `data-` and `aria-` ones become attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A colour that belongs to a person wherever they appear. */
function hue(text) {
  let hash = 0;
  for (const letter of text) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash % 360;
}

export function paintAvatar(avatar, id, name) {
  const letters = [...new Intl.Segmenter().segment(name.trim())];
  avatar.textContent = (letters[0]?.segment ?? "?").toLocaleUpperCase();
  avatar.style.setProperty("--hue", hue(id));
  return avatar;
}

const avatarOf = (id, name) =>
  paintAvatar(element("span", { className: "avatar", "aria-hidden": "true" }), id, name);

/** The text with its web addresses as links. */
function withLinks(text) {
  const parts = [];
  let end = 0;
  for (const { 0: url, index } of text.matchAll(LINK)) {
    const link = element("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, url);
    parts.push(text.slice(end, index), link);
    end = index + url.length;
  }
  return [...parts, text.slice(end)];
}

const sameDay = (a, b) => new Date(a).toDateString() === new Date(b).toDateString();

function dayOf(time) {
  if (sameDay(time, Date.now())) return "Today";
  if (sameDay(time, Date.now() - 86_400_000)) return "Yesterday";
  return calendar.format(time);
}

const divider = (text, className) => element("li", { className }, element("span", {}, text));

/** What one entry of a room adds to the list of messages: up to two items. */
export function drawEntry(entry, before) {
  if (entry.notice) return [divider(entry.notice, "notice")];
  const items = [];
  if (!before?.time || !sameDay(before.time, entry.time)) items.push(divider(dayOf(entry.time), "day"));
  const follows =
    !items.length && before?.from === entry.from && !before?.notice && entry.time - before.time < GROUP_GAP;
  items.push(drawMessage(entry, follows));
  return items;
}

function drawMessage({ from, user, text, time, own }, follows) {
  const at = new Date(time);
  const when = element("time", { dateTime: at.toISOString(), title: at.toLocaleString() }, clock.format(at));
  const className = `message${own ? " own" : ""}${follows ? " follows" : ""}${ONLY_EMOJI.test(text) ? " emoji" : ""}`;
  return element(
    "li",
    { className, "data-testid": "message" },
    avatarOf(from, user),
    element(
      "div",
      { className: "bubble" },
      element("p", { className: "meta" }, element("b", { "data-testid": "message-user" }, user), when),
      element("p", { className: "text", "data-testid": "message-text" }, ...withLinks(text)),
    ),
  );
}

/** A message of ours that the server has not confirmed. */
export function drawUnsent({ text, problem }, { connected, retry, discard }) {
  const kind = problem ? "problem" : connected ? "sending" : "waiting";
  const status = problem || (connected ? "Sending…" : "Waiting for the connection");
  const line = element("li", { className: `unsent ${kind}` });
  line.append(element("p", { className: "text" }, text), element("small", {}, status));
  if (problem) {
    line.append(
      element("button", { type: "button", onclick: retry }, "Try again"),
      element("button", { type: "button", onclick: discard }, "Discard"),
    );
  }
  return line;
}

export function drawRoom(room, isActive, { show, leave }) {
  const open = element(
    "button",
    { type: "button", className: "open", onclick: show },
    element("span", { className: "name" }, room.name),
  );
  if (isActive) open.setAttribute("aria-current", "true");
  if (room.unread) open.append(element("b", { className: "badge" }, String(room.unread)));
  const close = element(
    "button",
    {
      type: "button",
      className: "leave",
      "data-testid": "room-leave",
      "aria-label": `Leave ${room.name}`,
      onclick: leave,
    },
    "×",
  );
  const className = isActive ? "room active" : "room";
  return element("li", { className, "data-testid": "room", "data-room": room.name }, open, close);
}

export function drawPerson({ id, name, own }) {
  const label = element("span", { className: "name" }, name);
  const line = element("li", { "data-testid": "online-user", "data-user": id }, avatarOf(id, name), label);
  if (own) line.append(element("small", {}, "you"));
  return line;
}

/** Say who is typing, in a line that is there even when nobody is. */
export function drawTyping(names) {
  const some = names.length > 3 ? [`${names.length} people`] : names;
  const who = new Intl.ListFormat("en").format(some);
  $("typing").classList.toggle("nobody", names.length === 0);
  $("typing-text").textContent = names.length ? `${who} ${names.length === 1 ? "is" : "are"} typing` : "";
}

/** The figures of the connection. */
export function drawStats(welcome, stats) {
  const rows = [
    ["State", stats.state],
    ["Node", welcome?.node],
    ["Connection", welcome?.connection],
    ["Connected", stats.connects === 1 ? "once" : `${stats.connects} times`],
    ["Messages", `${stats.sent} sent, ${stats.received} received`],
    ["Waiting", `${stats.queued} to send, ${stats.pending} for an answer`],
    ["Repeats", `${stats.duplicates} held back`],
    ["Gaps", String(stats.gaps)],
  ];
  $("stats").replaceChildren(
    ...rows.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value ?? "–")]),
  );
}

const BANNERS = {
  connecting: () => ["Connecting…", "Try now"],
  suspended: () => ["You are offline. The chat goes on when the network is back.", "Try now"],
  failed: (because) => [`The server does not let us in${because}.`, "Try again"],
  closed: () => ["You were disconnected.", "Connect again"],
};

let countdown;

/** Show the state of the connection, and what that means where it is not open. */
export function drawState({ state, close, delay }) {
  $("state").textContent = state;
  $("state-box").dataset.state = state;
  $("banner").hidden = state === "open" || state === "idle";
  clearInterval(countdown);
  if (state === "waiting") return countDown(performance.now() + delay);
  const because = close?.reason ? ` (${close.reason})` : "";
  const [text = "", action = ""] = BANNERS[state]?.(because) ?? [];
  $("banner-text").textContent = text;
  $("banner-action").textContent = action;
}

function countDown(due) {
  const tick = () => {
    const seconds = Math.ceil((due - performance.now()) / 1000);
    const when = seconds > 0 ? `in ${seconds} s` : "now";
    $("banner-text").textContent = `The connection is lost. Next try ${when}.`;
  };
  tick();
  $("banner-action").textContent = "Try now";
  countdown = setInterval(tick, 250);
}

/** Say something in passing. */
export function toast(text) {
  const line = element("p", {}, text);
  $("toasts").append(line);
  setTimeout(() => line.remove(), 6000);
}
