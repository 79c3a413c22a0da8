// What every page has: where it stands, its menu, its colours, its questions, its actions.

import { $, h, icon } from "./dom.js";

const { prefix, csrf } = document.body.dataset;
const read = (id) => JSON.parse($(`#${id}`)?.textContent ?? "{}");

/** What the node knew when it sent the page. */
export const picture = read("picture");
export const query = read("query");
export const name = query.name ?? "";

// ---- where things are

const segment = (text) => (/^\.{1,2}$/.test(text) ? `-?name=${text}` : encodeURIComponent(text));
export const linkTo = {
  connection: (id) => `${prefix}/connections/${segment(id)}`,
  channel: (id) => `${prefix}/channels/${segment(id)}`,
  user: (id) => `${prefix}/users/${segment(id)}`,
  node: (id) => `${prefix}/nodes/${segment(id)}`,
  connections: (filters) => `${prefix}/connections?${new URLSearchParams(filters)}`,
  tap: (filters) => `${prefix}/tap?${new URLSearchParams(filters)}`,
  socket: () => `${location.origin.replace("http", "ws")}${prefix}/socket`,
};

export const link = (kind, id, text = id) => h("a", { href: linkTo[kind](id) }, text);

// ---- telling

export function toast(text, { bad = false } = {}) {
  const made = h("p", { class: bad ? "toast bad" : "toast", "data-testid": "toast" }, text);
  $("#toasts").append(made);
  setTimeout(() => made.remove(), bad ? 8000 : 4000);
}

/** Show what stands in the way of the whole page; nothing takes it away. */
export function trouble(text) {
  const box = $("#trouble");
  box.hidden = !text;
  if (text && box.textContent !== text) box.replaceChildren(icon("alert"), h("span", {}, text));
}

/** Show what is wrong with the node that serves this page, and with its Redis, however the page itself fares. */
export function notes(lines = []) {
  const box = $("#notes");
  box.hidden = !lines.length;
  if (box.dataset.said === lines.join("\n")) return;
  box.dataset.said = lines.join("\n");
  box.replaceChildren(...lines.map((line) => h("li", {}, icon("alert"), h("span", {}, line))));
}

export function missing(text) {
  const box = $("#missing");
  box.hidden = !text;
  $("#found").hidden = Boolean(text);
  if (text) box.replaceChildren(icon("empty"), h("strong", {}, "It is not here"), h("span", {}, text));
}

/** Ask before something that cannot be taken back. */
export function confirm(title, text, button) {
  const dialog = $("#ask");
  $("#ask-title").textContent = title;
  $("#ask-text").textContent = text;
  $("#ask-yes").textContent = button;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages without TLS may not: the text can still be selected by hand.
    toast("The browser does not let this page copy", { bad: true });
    return;
  }
  button.dataset.done = "true";
  setTimeout(() => delete button.dataset.done, 1500);
}

// ---- doing

/** Have the node do something; resolves with what came of it, or null after telling what was wrong. */
export async function act(action, fields, done = "Done") {
  try {
    const response = await fetch(`${prefix}/actions/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify(fields),
    });
    if (response.status === 401) location.reload();
    const answer = response.headers.get("Content-Type")?.includes("json")
      ? await response.json()
      : { error: await response.text() };
    if (!response.ok) throw new Error(answer.error || `The node answered ${response.status}`);
    toast(typeof done === "function" ? done(answer) : done);
    return answer;
  } catch (error) {
    toast(error.message, { bad: true });
    return null;
  }
}

// ---- the frame around every page

function showMenu(open) {
  document.body.classList.toggle("menu-open", open);
  $("#menu").setAttribute("aria-expanded", String(open));
  $("#shade").hidden = !open;
  if (open) $("#nav a").focus();
}

$("#menu").addEventListener("click", () => showMenu(!document.body.classList.contains("menu-open")));
$("#shade").addEventListener("click", () => showMenu(false));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("menu-open")) {
    showMenu(false);
    $("#menu").focus();
  }
});

const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

$("#theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("gateway-admin-theme", theme);
  } catch {
    // It holds for this page, then.
  }
  dispatchEvent(new Event("theme"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  dispatchEvent(new Event("theme")),
);

trouble(picture.trouble);
notes(picture.notes);
