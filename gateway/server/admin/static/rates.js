// How many messages a second are written to each channel, while somebody looks.

import { $$, h, say } from "./dom.js";
import { short } from "./format.js";

/** Nodes begin to count with the first look, and tell what they have counted in two seconds. */
const COUNTED = 5000;

let known = {};

/** What has no figure had no message, once there was time for one. */
const text = (name) => (name in known ? short(known[name]) : performance.now() > COUNTED ? "0" : "–");

export const rate = (name) => h("span", { "data-rate": name }, text(name));

export function rates({ rates: heard }) {
  if (!heard) return;
  known = heard;
  for (const target of $$("[data-rate]")) say(target, text(target.dataset.rate));
}
