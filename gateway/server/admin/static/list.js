// A list of the cluster: searched, sorted and paged by the nodes, kept up to date here.

import { $, h, keyed, nothing, say } from "./dom.js";
import { plural } from "./format.js";
import { again, watch } from "./live.js";
import { query as first, picture, trouble } from "./page.js";

const PAUSE = 200;
const KEPT = ["sort", "order", "cursor", "page"];

/**
 * `columns`: `{ label, sort?, cell(row), class?, ages?(row) }` in order; `ages` is a text that time changes. `noun`: what a row is. `empty`: what to say where
 * there is none. `fixed`: what the page itself adds to every query.
 */
export function list(view, { columns, key, noun, empty, fixed = {}, fallback = {}, heard = () => {} }) {
  const table = $("#rows");
  const form = $("#filters");
  const state = Object.fromEntries(Object.entries(first).filter(([, value]) => value));
  const names = form ? [...form.elements].map((field) => field.name).filter(Boolean) : [];
  for (const field of names) form.elements[field].value = state[field] ?? "";

  const head = h("tr");
  const body = h("tbody");
  table.replaceChildren(h("thead", {}, head), body);

  /** What was last drawn the rows of. */
  let drawn = "";

  const query = () => ({ ...state, ...fixed });
  const isFiltered = () => names.some((field) => state[field]);
  const address = (changes) => {
    const next = new URLSearchParams();
    for (const [field, value] of Object.entries({ ...state, ...changes }))
      if (value && !(field in fixed)) next.set(field, value);
    return `${location.pathname}?${next}`;
  };

  /** Show something else: in the address, too, so that it can be kept, sent and gone back from. */
  function go(changes, { keep = false } = {}) {
    Object.assign(state, changes);
    for (const field of Object.keys(state)) if (!state[field]) delete state[field];
    history[keep ? "pushState" : "replaceState"](null, "", address({}));
    drawHead();
    again();
  }

  function drawHead() {
    const sorted = state.sort ?? fallback.sort;
    const order = state.order ?? (state.sort ? "up" : (fallback.order ?? "up"));
    head.replaceChildren(
      ...columns.map(({ label, sort, class: name }) => {
        if (!sort) return h("th", { scope: "col", class: name }, label);
        const is = sort === sorted;
        const turn = () => go({ sort, order: is && order === "up" ? "down" : "up", cursor: "", page: "" });
        const arrow = h(
          "span",
          { class: "arrow", "aria-hidden": "true" },
          is ? (order === "up" ? "↑" : "↓") : "",
        );
        const direction = is ? (order === "up" ? "ascending" : "descending") : "none";
        return h(
          "th",
          { scope: "col", class: name, "aria-sort": direction },
          h("button", { type: "button", onclick: turn }, label, arrow),
        );
      }),
    );
  }

  const cells = (row) => columns.map(({ cell, class: name }) => h("td", { class: name }, cell(row)));
  const make = (row) => h("tr", { "data-testid": "row", "data-drawn": JSON.stringify(row) }, ...cells(row));
  function update(element, row) {
    const text = JSON.stringify(row);
    if (element.dataset.drawn !== text) {
      element.dataset.drawn = text;
      element.replaceChildren(...cells(row));
    }
    for (const [i, { ages }] of columns.entries()) if (ages) say(element.children[i].firstChild, ages(row));
  }

  function draw(answer) {
    if (!answer.items) return;
    // Rows do not move under the pointer of somebody who is about to press one.
    const isBusy = drawn === JSON.stringify(state) && body.matches(":hover, :focus-within");
    if (!isBusy || answer.items.length === 0) keyed(body, answer.items, key, make, update);
    drawn = JSON.stringify(state);
    table.hidden = !answer.items.length;
    $("#nothing").hidden = Boolean(answer.items.length);
    if (!answer.items.length)
      nothing(
        $("#nothing"),
        isFiltered() ? "Nothing fits the search" : empty[0],
        isFiltered() ? "" : empty[1],
      );
    const page = Number(state.page ?? 1);
    const total = answer.total === null || answer.total === undefined ? "" : plural(answer.total, noun);
    say(
      $("#page-count"),
      [total, page > 1 || answer.cursor ? `page ${page}` : ""].filter(Boolean).join(" · "),
    );
    turn($("#page-first"), state.cursor, { cursor: "", page: "" });
    turn($("#page-next"), answer.cursor, { cursor: answer.cursor, page: String(page + 1) });
    $(".pager").hidden = !$("#page-count").textContent && !state.cursor && !answer.cursor;
    if (answer.silent?.length)
      trouble(`No answer in time from ${answer.silent.join(", ")}: what it holds is missing here`);
    heard(answer);
  }

  function turn(anchor, shown, changes) {
    anchor.hidden = !shown;
    if (shown) anchor.href = address(changes);
    anchor.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go(changes, { keep: true });
      table.closest(".panel").scrollIntoView({ block: "nearest" });
    };
  }

  function search() {
    const changes = Object.fromEntries(names.map((field) => [field, form.elements[field].value.trim()]));
    go({ ...changes, cursor: "", page: "" });
  }

  let due;
  form?.addEventListener("input", () => {
    clearTimeout(due);
    due = setTimeout(search, PAUSE);
  });
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  form?.addEventListener("reset", () => setTimeout(search));
  addEventListener("popstate", () => {
    for (const field of [...names, ...KEPT]) delete state[field];
    Object.assign(state, Object.fromEntries(new URLSearchParams(location.search)));
    for (const field of names) form.elements[field].value = state[field] ?? "";
    drawHead();
    again();
  });

  drawHead();
  draw(picture);
  watch(view, query, draw);
}

/** A list of names that are links, no more of them than a row bears. */
export function some(names, makeLink, most = 3) {
  const shown = names.slice(0, most).map((name) => makeLink(name));
  const rest = names.length - shown.length;
  return h(
    "span",
    { class: "chips" },
    ...shown,
    ...(rest > 0 ? [h("span", { class: "soft" }, `+${rest}`)] : []),
  );
}
