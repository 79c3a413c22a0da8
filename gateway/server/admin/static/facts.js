// A list of names and values.

import { $$, h, say } from "./dom.js";

/** Draw pairs of a name and a text, or `{ text, href }`. */
export function facts(list, pairs) {
  if ($$("dd", list).length !== pairs.length) {
    list.replaceChildren(...pairs.map(() => h("div", {}, h("dt"), h("dd", { class: "break" }))));
  }
  $$("div", list).forEach((row, i) => {
    const [label, value] = pairs[i];
    say(row.firstChild, label);
    if (typeof value !== "object") say(row.lastChild, String(value));
    else if (
      row.lastChild.textContent !== value.text ||
      row.querySelector("a")?.getAttribute("href") !== value.href
    )
      row.lastChild.replaceChildren(h("a", { href: value.href }, value.text));
  });
}
