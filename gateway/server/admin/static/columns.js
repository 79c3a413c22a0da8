// The columns of a table of connections, which more than one page has.

import { h } from "./dom.js";
import { day, lasted } from "./format.js";
import { some } from "./list.js";
import { link } from "./page.js";

const chip = (channel) => {
  const made = link("channel", channel);
  made.className = "chip clip";
  return made;
};

const who = (row) => (row.anonymous ? h("span", { class: "soft" }, "anonymous") : link("user", row.user));

const age = (row) => lasted(Date.now() - row.started);

export const connectionColumns = [
  { label: "Connection", sort: "id", cell: (row) => link("connection", row.id), class: "mono clip wide" },
  { label: "User", sort: "user", cell: who, class: "clip" },
  {
    label: "Name",
    sort: "name",
    cell: (row) => row.name || h("span", { class: "soft" }, "–"),
    class: "clip",
  },
  { label: "Channels", sort: "channels", cell: (row) => some(row.channels, chip, 2) },
  { label: "Node", sort: "node", cell: (row) => link("node", row.node), class: "clip" },
  { label: "Address", sort: "remote", cell: (row) => row.remote, class: "mono clip" },
  {
    label: "Connected",
    sort: "started",
    cell: (row) => h("span", { title: day(row.started) }, age(row)),
    ages: age,
    class: "number",
  },
];
