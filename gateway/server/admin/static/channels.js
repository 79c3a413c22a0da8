// All channels of the cluster.

import { h } from "./dom.js";
import { plural, whole } from "./format.js";
import { list } from "./list.js";
import { link } from "./page.js";
import { rate, rates } from "./rates.js";

list("channels", {
  columns: [
    { label: "Channel", sort: "name", cell: (row) => link("channel", row.name), class: "clip wide" },
    { label: "Members", sort: "size", cell: (row) => whole(row.members), class: "number" },
    { label: "Users online", cell: (row) => whole(row.online), class: "number" },
    { label: "Messages/s", cell: (row) => rate(row.name), class: "number" },
    {
      label: "History",
      cell: (row) => (row.history ? plural(row.history, "message") : h("span", { class: "soft" }, "none")),
      class: "clip",
    },
  ],
  key: (row) => row.name,
  noun: "channel",
  empty: ["No channel has a member", "A channel is there as long as somebody is in it."],
  fallback: { sort: "size", order: "down" },
  heard: rates,
});
