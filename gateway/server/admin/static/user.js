// One user, wherever connected.

import { connectionColumns } from "./columns.js";
import { compose } from "./compose.js";
import { $ } from "./dom.js";
import { plural } from "./format.js";
import { list } from "./list.js";
import { act, confirm, missing, name, picture } from "./page.js";

missing(picture.missing);
if (!picture.missing) {
  list("user", {
    columns: connectionColumns.filter(({ label }) => label !== "User").map(({ sort, ...column }) => column),
    key: (row) => row.id,
    noun: "connection",
    empty: ["This user is not connected", "What is sent now reaches nobody."],
    fixed: { name },
  });
}

compose((cmd, param) => act("send", { kind: "user", name, cmd, param }, `Sent to ${name}`));

const ended = ({ ended: count }) => `${plural(count, "connection")} ended`;
$("#reconnect").addEventListener("click", () =>
  act("disconnect-user", { user: name, reconnect: true }, ended),
);
$("#disconnect").addEventListener("click", async () => {
  const text = "Every connection is closed with 4410, and the clients are told not to come back.";
  if (await confirm(`Disconnect ${name}?`, text, "Disconnect"))
    await act("disconnect-user", { user: name }, ended);
});
