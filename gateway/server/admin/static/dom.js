// Makes elements. Text is only ever set as text: nothing a client controls becomes markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element with attributes (`on...` are listeners, null and false leave one out) and children. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("viewBox", "0 0 20 20");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  made.append(use);
  return made;
}

/** Replace the text of an element; costs nothing when it is the same. */
export function say(target, text) {
  if (target && target.textContent !== text) target.textContent = text;
}

/** What stands where there is nothing to show. */
export function nothing(target, title, text = "") {
  target.hidden = false;
  target.replaceChildren(icon("empty"), h("strong", {}, title), ...(text ? [h("span", {}, text)] : []));
}

/** Draw one element per item, keeping the elements of items that were there before. */
export function keyed(parent, items, key, make, update) {
  const before = new Map($$(":scope > [data-key]", parent).map((element) => [element.dataset.key, element]));
  const after = items.map((item) => {
    const id = String(key(item));
    const element = before.get(id) ?? make(item);
    element.dataset.key = id;
    update?.(element, item);
    return element;
  });
  const same = parent.children.length === after.length && after.every((e, i) => parent.children[i] === e);
  if (!same) parent.replaceChildren(...after);
}
