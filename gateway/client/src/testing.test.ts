import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Client, type ClientOptions } from "./client";
import { GatewayError } from "./errors";
import { Socket } from "./socket";
import { type MockConnection, MockServer, type MockServerOptions } from "./testing";

let server: MockServer;
const clients: Client[] = [];

beforeEach(() => {
  vi.useFakeTimers({ now: 1_800_000_000_000 });
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  server.uninstall();
  vi.useRealTimers();
});

const settle = () => vi.advanceTimersByTimeAsync(0);

/** A client of the server, open unless it cannot be. */
async function connect(url = "ws://test/connect", options: ClientOptions = {}): Promise<Client> {
  const client = new Client(url, { WebSocket: server.WebSocket, random: () => 0.5, ...options });
  clients.push(client);
  await settle();
  return client;
}

async function start(options: MockServerOptions = {}): Promise<Client> {
  server = new MockServer(options);
  return connect();
}

const only = (): MockConnection => server.connections[0] as MockConnection;

describe("a mock server", () => {
  test("welcomes", async () => {
    const client = await start();
    expect(client.state).toBe("open");
    expect(client.welcome).toEqual({
      connection: "c1",
      node: "mock",
      user: "c1",
      channels: [],
      heartbeat: 25,
    });
  });

  test("knows users, tokens and first channels by the address", async () => {
    server = new MockServer();
    const client = await connect("ws://test/connect?user=ada&ch=lobby", { token: "secret" });
    expect(client.welcome).toMatchObject({ user: "ada", channels: ["lobby"] });
    expect(only().token).toBe("secret");
    void client.authenticate("fresh");
    await settle();
    expect(only().token).toBe("fresh");
    expect(server.online("lobby")).toEqual(["ada"]);
  });

  test("answers requests by its handlers, and refuses as a node does", async () => {
    const client = await start();
    server.on("add", ([a, b]: [number, number]) => a + b);
    server.on("later", async () => "done");
    server.on("deny", () => {
      throw new GatewayError("rate-limited", "slow down", { retryAfter: 2000 });
    });
    server.on("break", () => {
      throw new TypeError("oops");
    });
    expect(await client.request("add", [1, 2])).toBe(3);
    expect(await client.request("later")).toBe("done");
    await expect(client.request("deny")).rejects.toMatchObject({ code: "rate-limited", retryAfter: 2000 });
    await expect(client.request("break")).rejects.toMatchObject({ code: "internal" });
    await expect(client.request("nothing")).rejects.toMatchObject({ code: "unknown-command" });
    expect(only().received.map(({ cmd }) => cmd)).toEqual(["add", "later", "deny", "break", "nothing"]);
  });

  test("writes to channels, users, everyone, one", async () => {
    const client = await start();
    const other = await connect("ws://test/connect?user=ada");
    await client.channel("lobby").join();
    const heard: string[] = [];
    client.on("message", ({ cmd, channel, from }) => heard.push([cmd, channel, from].join(" ")));
    other.on("message", ({ cmd }) => heard.push(`other ${cmd}`));
    server.publish("lobby", "chat", { text: "hi" }, "grace");
    server.writeUser("ada", "note");
    server.writeAll("news");
    only().send("direct", null, "lobby");
    await settle();
    expect(heard.sort()).toEqual(["chat lobby grace", "direct lobby ", "news  ", "other news", "other note"]);
  });

  test("keeps who is there, and announces each user once", async () => {
    const client = await start();
    const lobby = client.channel("lobby");
    const updates: unknown[] = [];
    lobby.on("online-update", (update) => updates.push(update));
    await lobby.join();
    const tabs = [
      await connect("ws://test/connect?user=ada&ch=lobby"),
      await connect("ws://test/connect?user=ada&ch=lobby"),
    ];
    expect(await lobby.presence()).toEqual({ count: 2, users: ["c1", "ada"] });
    for (const tab of tabs) tab.close();
    await settle();
    expect(updates).toEqual([
      { userID: "ada", connected: true },
      { userID: "ada", connected: false },
    ]);
  });

  test("only counts a crowd", async () => {
    const client = await start({ presenceMax: 1 });
    const counts: number[] = [];
    client.channel("lobby").on("online-count", ({ count }) => counts.push(count));
    await client.channel("lobby").join();
    await connect("ws://test/connect?ch=lobby");
    expect(counts).toEqual([2]);
    expect(await client.channel("lobby").presence()).toEqual({ count: 2 });
  });

  test("lets members only ask, and only those in who may", async () => {
    const client = await start({ authorize: (_, channel) => channel !== "secret" });
    client.on("error", () => {});
    await expect(client.channel("lobby").presence()).rejects.toMatchObject({ code: "forbidden" });
    await expect(client.channel("secret").join()).rejects.toMatchObject({ code: "forbidden" });
  });

  test("puts connections in channels and takes them out", async () => {
    const client = await start();
    server.join(only(), "lobby");
    expect([...only().channels]).toEqual(["lobby"]);
    expect(await client.channel("lobby").presence()).toMatchObject({ count: 1 });
    server.leave(only(), "lobby");
    expect(server.online("lobby")).toEqual([]);
  });
});

describe("its history", () => {
  test("is resumed after a loss: nothing missed, nothing twice", async () => {
    const client = await start({ history: 100 });
    const lobby = client.channel("lobby");
    const texts: unknown[] = [];
    const gaps = vi.fn();
    lobby.on("chat", (text) => texts.push(text));
    lobby.on("$gap", gaps);
    await lobby.join();
    server.publish("lobby", "chat", 1);
    await settle();
    server.drop();
    server.publish("lobby", "chat", 2);
    await vi.advanceTimersByTimeAsync(250);
    server.publish("lobby", "chat", 3);
    await settle();
    expect(client.state).toBe("open");
    expect(texts).toEqual([1, 2, 3]);
    expect(gaps).not.toHaveBeenCalled();
  });

  test("is read by members, the newest first of all", async () => {
    const client = await start({ history: (channel) => (channel === "lobby" ? 3 : 0) });
    const lobby = client.channel("lobby");
    await lobby.join();
    for (const number of [1, 2, 3, 4]) server.publish("lobby", "chat", number);
    expect(server.history("lobby").map(({ offset }) => offset)).toEqual([2, 3, 4]);
    const params = async (range: object) =>
      (await lobby.history(range)).messages.map(({ param }) => param as number);
    expect(await params({})).toEqual([2, 3, 4]);
    expect(await params({ limit: 2 })).toEqual([3, 4]);
    expect(await params({ limit: 1, since: { epoch: "e1", offset: 2 } })).toEqual([3]);
    await client.channel("loose").join();
    await expect(client.channel("loose").history()).rejects.toMatchObject({ code: "forbidden" });
  });

  test("may be lost, and gaps are told", async () => {
    const client = await start({ history: 100 });
    const gaps: unknown[] = [];
    client.on("gap", (gap) => gaps.push(gap));
    await client.channel("lobby").join();
    server.publish("lobby", "chat", 1);
    server.forget("lobby");
    server.gap("lobby");
    await settle();
    expect(gaps).toMatchObject([
      { epoch: "e2", since: { epoch: "e1", offset: 1 } },
      { epoch: null, since: { epoch: "e2", offset: 0 } },
    ]);
  });
});

describe("its network", () => {
  test("takes its time", async () => {
    const client = await start({ latency: 100 });
    await vi.advanceTimersByTimeAsync(199);
    expect(client.state).toBe("connecting");
    await vi.advanceTimersByTimeAsync(1);
    expect(client.state).toBe("open");
    server.on("ask", () => 1);
    const answered = vi.fn();
    void client.request("ask").then(answered);
    await vi.advanceTimersByTimeAsync(199);
    expect(answered).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(answered).toHaveBeenCalledWith(1);
  });

  test("lets nothing overtake what was sent before it", async () => {
    const client = await start({ latency: 100 });
    await vi.advanceTimersByTimeAsync(200);
    const numbers: unknown[] = [];
    client.channel("").on("n", (number) => numbers.push(number));
    only().send("n", 1);
    server.latency = 0;
    only().send("n", 2);
    await vi.advanceTimersByTimeAsync(100);
    expect(numbers).toEqual([1, 2]);
  });

  test("closes with codes", async () => {
    const client = await start();
    const changes: unknown[] = [];
    client.on("state", (change) => changes.push(change));
    server.close(1012, "node is restarting; retry_after=3");
    await settle();
    expect(changes).toMatchObject([{ state: "waiting", delay: 3000, close: { code: 1012 } }]);
    await vi.advanceTimersByTimeAsync(3000);
    only().close(4410, "bye");
    await settle();
    expect(client.state).toBe("closed");
    expect(server.connections).toEqual([]);
  });

  test("refuses while it accepts nobody", async () => {
    server = new MockServer();
    server.accepting = false;
    const client = await connect();
    expect(client.state).toBe("waiting");
    server.accepting = true;
    client.connect();
    await settle();
    expect(client.state).toBe("open");
  });

  test("may die without a word", async () => {
    const client = await start({ heartbeat: 5 });
    server.silent = true;
    await vi.advanceTimersByTimeAsync(11_800);
    expect(client.state).toBe("connecting");
  });
});

test("a plain socket is served as without a subprotocol", async () => {
  server = new MockServer({ history: 10 }).install();
  const messages: unknown[] = [];
  const opened = vi.fn();
  const socket = new Socket(
    false,
    opened,
    (message) => messages.push(message),
    vi.fn(),
    "ws://test/connect?ch=a",
  );
  await settle();
  expect(opened).toHaveBeenCalledOnce();
  server.publish("a", "chat", "hi");
  socket.send({ cmd: "$join", channel: "b" });
  await settle();
  expect(messages).toMatchObject([
    { channel: "a", cmd: "chat", param: "hi" },
    { cmd: "$error", param: { code: "unknown-command" } },
  ]);
  expect(messages[0]).not.toHaveProperty("offset");
  socket.disconnect();
});

test("install() and uninstall() leave no trace", () => {
  const before = globalThis.WebSocket;
  server = new MockServer().install().install();
  expect(globalThis.WebSocket).toBe(server.WebSocket);
  server.uninstall();
  expect(globalThis.WebSocket).toBe(before);
});
