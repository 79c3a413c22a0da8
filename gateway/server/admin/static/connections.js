// All connections of the cluster.

import { connectionColumns } from "./columns.js";
import { $, h } from "./dom.js";
import { list } from "./list.js";
import { look } from "./live.js";

list("connections", {
  columns: connectionColumns,
  key: (row) => row.id,
  noun: "connection",
  empty: ["Nobody is connected", "Clients show here as soon as they connect to any node."],
  fallback: { sort: "started", order: "down" },
});

$("#node").addEventListener(
  "focus",
  async () => {
    const { nodes } = await look("nodes", {});
    $("#node-names").replaceChildren(...nodes.map((node) => h("option", { value: node.id })));
  },
  { once: true },
);
