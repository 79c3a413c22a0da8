// @vitest-environment happy-dom
import { act, createElement as h, type ReactNode, StrictMode } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Client } from "./client";
import { type Listeners, useChannel, useConnectionState, usePresence } from "./react";
import { MockServer } from "./testing";

let server: MockServer;
let client: Client;
let place: HTMLElement;
let root: Root;

beforeEach(() => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  vi.useFakeTimers({ now: 1_800_000_000_000, toFake: ["setTimeout", "clearTimeout", "Date"] });
  server = new MockServer();
  client = new Client("ws://test/connect?user=ada", { WebSocket: server.WebSocket, random: () => 0.5 });
  place = document.createElement("div");
  root = createRoot(place);
});
afterEach(async () => {
  await act(() => root.unmount());
  client.close();
  vi.useRealTimers();
});

/** Render, and let everything happen that does not need time. */
async function show(node: ReactNode): Promise<void> {
  await pass(0, () => root.render(node));
  await pass(0);
}

const pass = (milliseconds: number, then = () => {}) =>
  act(async () => {
    then();
    await vi.advanceTimersByTimeAsync(milliseconds);
  });

const sent = () => server.connections.flatMap(({ received }) => received.map(({ cmd }) => cmd));

function State(): string {
  return useConnectionState(client);
}

function Lobby({ name = "lobby", listeners = {} }: { name?: string; listeners?: Listeners }): string {
  const { channel, joined, error } = useChannel(client, name, listeners);
  return `${channel.name} ${joined} ${error?.code ?? ""}`;
}

function People({ name = "lobby" }: { name?: string }): string {
  return usePresence(client, name)?.users?.join() ?? "unknown";
}

test("the state of the connection is rendered as it changes", async () => {
  await act(() => root.render(h(State)));
  expect(place.textContent).toBe("open");
  await pass(0, () => server.drop());
  expect(place.textContent).toBe("waiting");
  await pass(250);
  expect(place.textContent).toBe("open");
});

test("a channel is joined while mounted, and left afterwards", async () => {
  await show(h(Lobby));
  expect(place.textContent).toBe("lobby true ");
  expect(server.online("lobby")).toEqual(["ada"]);
  await show(null);
  expect(server.online("lobby")).toEqual([]);
});

test("components share a membership", async () => {
  await show([h(Lobby, { key: 1 }), h(Lobby, { key: 2 })]);
  await show([h(Lobby, { key: 2 })]);
  expect(server.online("lobby")).toEqual(["ada"]);
  expect(sent()).toEqual(["$join"]);
});

test("StrictMode and a move to another page are no leave and join", async () => {
  await show(h(StrictMode, null, h(Lobby)));
  await show(h("p", null, h(Lobby)));
  expect(place.textContent).toBe("lobby true ");
  expect(sent()).toEqual(["$join"]);
});

test("another name is another channel", async () => {
  await show(h(Lobby));
  await show(h(Lobby, { name: "attic" }));
  expect(place.textContent).toBe("attic true ");
  expect(server.online("lobby")).toEqual([]);
});

test("a channel that the application joined stays joined", async () => {
  await client.channel("lobby").join();
  await show(h(Lobby));
  await show(null);
  expect(server.online("lobby")).toEqual(["ada"]);
});

test("a refusal is told", async () => {
  client.on("error", () => {});
  server.on("$join", () => {
    throw Object.assign(new Error("no"), { code: "forbidden" });
  });
  await show(h(Lobby));
  expect(place.textContent).toBe("lobby false forbidden");
});

test("so is one that comes after a reconnect, and that it is over", async () => {
  client.on("error", () => {});
  await show(h(Lobby));
  expect(place.textContent).toBe("lobby true ");
  let isClosed = true;
  server.on("$join", () => {
    if (isClosed) throw Object.assign(new Error("no"), { code: "forbidden" });
  });
  await pass(0, () => server.drop());
  expect(place.textContent).toBe("lobby true ");
  await pass(250);
  expect(place.textContent).toBe("lobby false forbidden");
  isClosed = false;
  await pass(0, () => void client.channel("lobby").join());
  expect(place.textContent).toBe("lobby true ");
  await pass(0, () => client.close());
  expect(place.textContent).toBe("lobby false closed");
});

test("listeners hear messages and gaps, the latest ones, and no more after the end", async () => {
  const heard: string[] = [];
  const listen = (name: string): Listeners => ({
    chat: ({ text }, { from }) => heard.push(`${name} ${text} ${from}`),
    $gap: () => heard.push(`${name} gap`),
  });
  await show(h(Lobby, { listeners: listen("first") }));
  await show(h(Lobby, { listeners: listen("second") }));
  await pass(0, () => {
    server.publish("lobby", "chat", { text: "hi" }, "grace");
    server.publish("lobby", "other");
    server.gap("lobby");
  });
  await show(null);
  await client.channel("lobby").join();
  await pass(0, () => server.publish("lobby", "chat", { text: "late" }));
  expect(heard).toEqual(["second hi grace", "second gap"]);
});

test("a channel that the server takes us out of is rendered as such, until it is joined again", async () => {
  const reasons: string[] = [];
  await show(h(Lobby, { listeners: { $left: ({ reason }) => reasons.push(reason) } }));
  await pass(0, () => server.connections[0] && server.leave(server.connections[0], "lobby", "forbidden"));
  expect(place.textContent).toBe("lobby false forbidden");
  await pass(0, () => server.connections[0]?.drop());
  await pass(250);
  expect(place.textContent).toBe("lobby false forbidden");
  expect(server.connections[0]?.channels.size).toBe(0);
  await pass(0, () => void client.channel("lobby").join());
  expect(place.textContent).toBe("lobby true ");
  expect(reasons).toEqual(["forbidden"]);
});

test("presence is rendered, kept through a reconnect, and forgotten with the channel", async () => {
  await show(h(People));
  expect(place.textContent).toBe("ada");
  const other = new Client("ws://test/connect?user=grace&ch=lobby", { WebSocket: server.WebSocket });
  await pass(0);
  expect(place.textContent).toBe("ada,grace");
  await pass(0, () => server.connections[0]?.drop());
  expect(place.textContent).toBe("ada,grace");
  await pass(250);
  expect(place.textContent?.split(",").sort()).toEqual(["ada", "grace"]);
  await act(() => root.render(h(People, { name: "attic" })));
  await pass(0);
  expect(place.textContent).toBe("ada");
  await pass(0, () => other.close());
});

test("rendering on a server connects nothing and joins nothing", async () => {
  const idle = new Client("ws://test/connect", { WebSocket: server.WebSocket, autoConnect: false });
  const before = client;
  client = idle;
  const html = renderToString(h("div", null, h(State), h("i", null, h(Lobby)), h("b", null, h(People))));
  expect(html).toBe("<div>idle<i>lobby false </i><b>unknown</b></div>");
  expect(idle.channel("lobby").wanted).toBe(false);
  const container = document.createElement("div");
  container.innerHTML = html;
  const problems = vi.spyOn(console, "error").mockImplementation(() => {});
  let hydrated: Root | undefined;
  await act(async () => {
    const page = h("div", null, h(State), h("i", null, h(Lobby)), h("b", null, h(People)));
    hydrated = hydrateRoot(container, page);
    idle.connect();
    await vi.advanceTimersByTimeAsync(0);
  });
  expect(container.textContent).toMatch(/^openlobby true c\d/);
  expect(problems).not.toHaveBeenCalled();
  await act(() => hydrated?.unmount());
  idle.close();
  client = before;
});
