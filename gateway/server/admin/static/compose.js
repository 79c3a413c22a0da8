// A form that writes a message; its JSON is checked while it is typed.

import { $, say } from "./dom.js";

/** Read what was typed as JSON: `[value]`, or null after saying what is wrong. Nothing at all is null. */
export function readJson(area, check) {
  const text = area.value.trim();
  let found = [null];
  let problem = "";
  if (text) {
    try {
      found = [JSON.parse(text)];
    } catch (error) {
      found = null;
      problem = error.message;
    }
  }
  check.dataset.ok = String(Boolean(found && text));
  say(check, problem ? `Not JSON: ${problem}` : text ? "Valid JSON" : "");
  if (problem) area.setAttribute("aria-invalid", "true");
  else area.removeAttribute("aria-invalid");
  return found;
}

/** Let the page's form send; `send` gets the command and the param. */
export function compose(send) {
  const form = $("#compose");
  const { cmd, param } = form.elements;
  const check = $(".check", form);
  param.addEventListener("input", () => readJson(param, check));
  cmd.addEventListener("input", () => cmd.removeAttribute("aria-invalid"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const found = readJson(param, check);
    if (!cmd.value.trim()) cmd.setAttribute("aria-invalid", "true");
    if (!cmd.value.trim()) return cmd.focus();
    if (!found) return param.focus();
    const button = $("button", form);
    button.disabled = true;
    await send(cmd.value.trim(), found[0]);
    button.disabled = false;
  });
  param.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
