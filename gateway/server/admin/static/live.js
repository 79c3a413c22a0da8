// Keeps a page up to date over the gateway's own client; a page that nobody looks at costs nothing. It says how old what
// it shows is, as soon as nobody says any more that it still holds.

import { Client } from "../gateway.mjs";
import { $, say } from "./dom.js";
import { lasted } from "./format.js";
import { linkTo, notes, trouble } from "./page.js";

const box = $("#live");
const WORDS = {
  open: "Live",
  old: "Not live",
  paused: "Paused",
  waiting: "Reconnecting",
  connecting: "Connecting",
};
const RENEW = 20 * 60_000;
/** Milliseconds without a word of the node after which what is shown is old; it looks within five seconds. */
const OLD = 8000;
/** Milliseconds without a word after which a page that is sent nothing by itself asks whether the node is there. */
const QUIET = 4000;

const client = new Client(linkTo.socket, { maxDelay: 5000 });
let wanted = null;
let hear = () => {};
/** How often was asked: the node does not answer what has been asked differently since. */
let asked = 0;
/** When the node last said how things are. The page came with a picture, made after time began for it. */
let heard = 0;
let isPinging = false;

/** Note that what is shown is what is. */
function note() {
  heard = performance.now();
  showState();
}

function showState() {
  // The clock of the page, which nobody sets: the machine's may jump, and is not the node's.
  const age = performance.now() - heard;
  const isOpen = client.state === "open";
  const state = document.hidden ? "paused" : isOpen && age > OLD ? "old" : client.state;
  box.dataset.state = WORDS[state] ? state : "waiting";
  say($("span", box), WORDS[state] ?? WORDS.waiting);
  const isOld = age > OLD || !["open", "connecting"].includes(box.dataset.state);
  document.body.dataset.old = String(isOld);
  $("#age").hidden = !isOld;
  say($("#age"), isOld ? `as of ${lasted(age)} ago` : "");
}

/** Tell the node what is to be seen now. */
async function ask() {
  showState();
  if (client.state !== "open") return;
  asked += 1;
  const turn = asked;
  try {
    if (document.hidden || !wanted) await client.request("rest");
    else {
      const [cmd, param] = wanted();
      const answer = await client.request(cmd, param);
      if (turn !== asked) return;
      if (cmd === "watch") show(answer);
      else note();
    }
  } catch (error) {
    if (turn === asked && !["closed", "aborted"].includes(error.code)) trouble(error.message);
  }
}

/** Ask whether the node is there, where it says nothing by itself: while the traffic is shown, or nothing asked for. */
async function askForLife() {
  const isWatching = wanted?.()[0] === "watch";
  if (document.hidden || isWatching || isPinging || client.state !== "open") return;
  if (performance.now() - heard < QUIET) return;
  isPinging = true;
  try {
    await client.request("$ping");
    note();
  } catch {
    // What is shown grows old, and says so.
  }
  isPinging = false;
}

function show(picture) {
  trouble(picture.trouble);
  notes(picture.notes);
  if (picture.trouble) return;
  hear("view", picture);
  note();
}

client.on("message", ({ cmd, param }) => {
  if (cmd === "view") show(param);
  else if (cmd === "same") note();
  else hear(cmd, param);
});
client.on("state", ({ state }) => {
  if (state === "open") ask();
  else showState();
  if (state === "waiting" || state === "failed") askForLogin();
});
document.addEventListener("visibilitychange", ask);
setInterval(() => {
  showState();
  askForLife();
}, 1000);

/** A socket that is refused does not say why: a page that is sent to the log-in does. */
async function askForLogin() {
  try {
    const response = await fetch(location.href, { method: "HEAD", redirect: "manual" });
    if (response.type === "opaqueredirect") location.reload();
  } catch {
    // The node is away; the client tries again.
  }
}
setInterval(() => document.hidden || askForLogin(), RENEW);

/** Show a view from now on: `query` tells what of it, whenever it is asked anew; `draw` hears each picture. */
export function watch(view, query, draw) {
  hear = (cmd, param) => cmd === "view" && draw(param);
  wanted = () => ["watch", { view, query: query() }];
  ask();
}

/** Ask again, because the query has changed. */
export const again = ask;

/** Hear the traffic that fits a filter. */
export function tap(filter, listener) {
  hear = listener;
  wanted = () => ["tap", filter()];
  ask();
}

/** Stop hearing anything until asked to. */
export function rest() {
  wanted = null;
  ask();
}

/** Look at a view once. */
export const look = (view, query) => client.request("look", { view, query });

showState();
