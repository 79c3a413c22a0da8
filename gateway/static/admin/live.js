// Keeps a page up to date over the gateway's own client; a page that nobody looks at costs nothing.

import { Client } from "../gateway.mjs";
import { $, say } from "./dom.js";
import { linkTo, notes, trouble } from "./page.js";

const box = $("#live");
const WORDS = { open: "Live", paused: "Paused", waiting: "Reconnecting", connecting: "Connecting" };
const RENEW = 20 * 60_000;

const client = new Client(linkTo.socket, { maxDelay: 5000 });
let wanted = null;
let hear = () => {};
/** How often was asked: the node does not answer what has been asked differently since. */
let asked = 0;

function showState() {
  const state = document.hidden ? "paused" : (WORDS[client.state] && client.state) || "waiting";
  box.dataset.state = state;
  say($("span", box), WORDS[state]);
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
      if (cmd === "watch" && turn === asked) show(answer);
    }
  } catch (error) {
    if (turn === asked && !["closed", "aborted"].includes(error.code)) trouble(error.message);
  }
}

function show(picture) {
  trouble(picture.trouble);
  notes(picture.notes);
  if (!picture.trouble) hear("view", picture);
}

client.on("message", ({ cmd, param }) => {
  if (cmd === "view") show(param);
  else hear(cmd, param);
});
client.on("state", ({ state }) => {
  if (state === "open") ask();
  else showState();
  if (state === "waiting" || state === "failed") askForLogin();
});
document.addEventListener("visibilitychange", ask);

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
