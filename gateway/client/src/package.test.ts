// What `npm pack` makes is what somebody installs: its files are there, its types resolve, its modules run.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const here = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(here, "node_modules");
let project: string;
let packed: string[];

/** A project that has the package and React installed, and nothing else. */
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), "gateway-consumer-"));
  const installed = join(project, "node_modules", "@gateway", "client");
  mkdirSync(installed, { recursive: true });
  mkdirSync(join(project, "node_modules", "@types"));
  for (const name of ["react", "csstype", join("@types", "react")]) {
    symlinkSync(join(modules, name), join(project, "node_modules", name));
  }
  const answer = run("npm", ["pack", "--json", "--silent", "--pack-destination", project], here);
  const [{ filename, files }] = JSON.parse(answer.slice(answer.search(/^\[/m)));
  packed = files.map(({ path }: { path: string }) => path).sort();
  run("tar", ["xzf", join(project, filename), "-C", installed, "--strip-components=1"]);
  write("package.json", JSON.stringify({ type: "module", private: true }));
}, 60_000);
afterAll(() => rmSync(project, { recursive: true, force: true }));

const write = (name: string, text: string) => writeFileSync(join(project, name), text);

function run(program: string, options: string[], cwd = project): string {
  try {
    return execFileSync(program, options, {
      cwd,
      encoding: "utf8",
      timeout: 50_000,
      stdio: ["ignore", "pipe", "pipe"],
    });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${program} ${options.join(" ")}\n${stdout}\n${stderr}`);
  }
}

const CONSUMER = `
import { Client, GatewayError, type Message, type Schema, Socket } from "@gateway/client";
import { useChannel, useConnectionState, usePresence } from "@gateway/client/react";
import { MockServer } from "@gateway/client/testing";

interface Chat extends Schema {
  commands: { chat: { param: { text: string }; reply: { id: number } } };
  messages: { chat: { user: string; text: string } };
}
const server = new MockServer({ history: 10 });
const client = new Client<Chat>("ws://test/connect", { WebSocket: server.WebSocket, autoConnect: false });
const sent: Promise<{ id: number }> = client.request("chat", { text: "hi" });
sent.catch((error: GatewayError) => error.code);
export async function read(): Promise<string[]> {
  const texts: string[] = [];
  for await (const message of client.channel("lobby").messages("chat")) {
    const typed: Message<{ user: string; text: string }> = message;
    texts.push(typed.param.text);
  }
  return texts;
}
export function Room() {
  const state = useConnectionState(client);
  const { joined, error } = useChannel(client, "lobby", { chat: ({ user }) => user.toUpperCase() });
  return [state, joined, error?.code, usePresence(client, "lobby")?.users?.length];
}
export const plain = new Socket(false, () => {}, (message) => message.cmd, () => {}, "/connect");
// @ts-expect-error a wrong param
client.send("chat", { text: 7 });
// @ts-expect-error no such message
useChannel(client, "lobby", { shout: () => {} });
`;

test("holds the built modules, their types, and what a package says of itself", () => {
  expect(packed).toEqual([
    "LICENSE",
    "README.md",
    "dist/gateway.d.ts",
    "dist/gateway.js",
    "dist/gateway.mjs",
    "dist/react.d.ts",
    "dist/react.mjs",
    "dist/testing.d.ts",
    "dist/testing.mjs",
    "package.json",
  ]);
});

describe("types resolve", () => {
  test.each(["nodenext", "bundler"])(
    "with moduleResolution %s",
    (moduleResolution) => {
      write("consumer.ts", CONSUMER);
      const compilerOptions = {
        ...{ strict: true, noEmit: true, skipLibCheck: false, target: "es2022", types: [] },
        ...{ module: moduleResolution === "nodenext" ? "nodenext" : "esnext", moduleResolution },
        lib: ["es2022", "dom", "dom.iterable"],
      };
      write("tsconfig.json", JSON.stringify({ compilerOptions, files: ["consumer.ts"] }));
      expect(run(process.execPath, [join(modules, "typescript", "bin", "tsc")])).toBe("");
    },
    60_000,
  );
});

const PROGRAM = `
import { Client } from "@gateway/client";
import * as react from "@gateway/client/react";
import { MockServer } from "@gateway/client/testing";
import about from "@gateway/client/package.json" with { type: "json" };

const server = new MockServer({ history: 10 });
const client = new Client("ws://test/connect?user=ada", { WebSocket: server.WebSocket });
const lobby = client.channel("lobby");
const messages = lobby.messages("chat");
await lobby.join();
server.publish("lobby", "chat", { text: "hi" });
const { value } = await messages.next();
const { users } = await lobby.presence();
client.close();
console.log(JSON.stringify([value.param.text, users, Object.keys(react).sort(), about.name]));
`;

test("runs in Node, outside any browser", () => {
  write("program.mjs", PROGRAM);
  const answer = run(process.execPath, ["--no-warnings", "program.mjs"]);
  expect(JSON.parse(answer)).toEqual([
    "hi",
    ["ada"],
    ["useChannel", "useConnectionState", "usePresence"],
    "@gateway/client",
  ]);
});

test("does no harm on a server: it fails once, and lets the process end", () => {
  write(
    "program.mjs",
    `import { Client } from "@gateway/client";
    const seen = [];
    for (const url of ["/connect", () => new URL("/connect", location.href).href]) {
      const client = new Client(url, { token: () => "t" });
      client.on("error", ({ code, message }) => seen.push(code, message));
      client.on("state", ({ state }) => seen.push(state));
      client.on("failed", () => client.request("add").catch(({ code }) => seen.push(code)));
      client.send("chat");
    }
    process.on("exit", () => console.log(JSON.stringify(seen)));`,
  );
  const seen = JSON.parse(run(process.execPath, ["--no-warnings", "program.mjs"]));
  expect(seen.sort()).toEqual([
    ...["closed", "closed", "connecting", "connecting"],
    "expected a full URL, since there is no page, of a gateway, got '/connect'",
    ...["failed", "failed", "invalid-url"],
  ]);
});

test("React is needed by the hooks alone", () => {
  rmSync(join(project, "node_modules", "react"));
  write("program.mjs", PROGRAM.replace(/^.*react.*$/m, "const react = {};"));
  expect(JSON.parse(run(process.execPath, ["--no-warnings", "program.mjs"]))[0]).toBe("hi");
});
