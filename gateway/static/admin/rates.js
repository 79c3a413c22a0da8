// How many messages a second are written to each channel, while somebody looks.

import { $$, h, say } from "./dom.js";
import { short } from "./format.js";

let known = {};

const text = (name) => (name in known ? short(known[name]) : "0");

export const rate = (name) => h("span", { "data-rate": name }, text(name));

export function rates({ rates: heard }) {
  if (!heard) return;
  known = heard;
  for (const target of $$("[data-rate]")) say(target, text(target.dataset.rate));
}
