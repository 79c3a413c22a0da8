// All identified users of the cluster.

import { h } from "./dom.js";
import { whole } from "./format.js";
import { list } from "./list.js";
import { link } from "./page.js";

list("users", {
  columns: [
    { label: "User", sort: "name", cell: (row) => link("user", row.id), class: "clip wide" },
    { label: "Name", cell: (row) => row.name || h("span", { class: "soft" }, "–"), class: "clip" },
    { label: "Connections", sort: "size", cell: (row) => whole(row.connections), class: "number" },
  ],
  key: (row) => row.id,
  noun: "user",
  empty: ["No identified user is connected", "Anonymous connections are on the Connections page."],
  fallback: { sort: "name" },
});
