// The same message, written by other means.

import { picture } from "./page.js";

/** The command that publishes, and the topics: where a name belongs in one, in two parts. */
const { publish, topics } = picture;

/** Quote for a shell. */
const shell = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

function redis(message) {
  const { cmd, param, kind, name } = message;
  const payload = { cmd, param, ...(kind === "connection" ? { connection: name } : {}) };
  return `${publish} ${shell(topics[kind].join(name))} ${shell(JSON.stringify(payload))}`;
}

function curl({ kind, name, cmd, param }) {
  const path = kind === "all" ? "messages" : `${kind}s/${encodeURIComponent(name)}/messages`;
  return [
    `curl -X POST ${shell(`${location.origin}/api/${path}`)} \\`,
    `  -H "Authorization: Bearer $GATEWAY_API_KEY" \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d ${shell(JSON.stringify({ cmd, param }))}`,
  ].join("\n");
}

/** A JSON value as Python writes it. */
function python(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)}: ${python(inner)}`);
    return `{${pairs.join(", ")}}`;
  }
  return JSON.stringify(value);
}

function publisher({ kind, name, cmd, param }) {
  const target = kind === "all" ? "" : `, ${python(name)}`;
  return [
    "import os",
    "",
    "import gateway",
    "",
    'with gateway.SyncPublisher(os.environ["GATEWAY_REDIS_URL"]) as publisher:',
    `    publisher.write_${kind}(${python(cmd)}, ${python(param)}${target})`,
  ].join("\n");
}

/** Title, text and language of each way. */
export const snippets = (message) => [
  ["redis-cli", redis(message), "redis"],
  ["curl", curl(message), "curl"],
  ["Python", publisher(message), "python"],
];
