import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Client, type ClientOptions, type Source } from "./client";
import { type FakePage, FakeSocket, fakeBrowser, settle } from "./fakes";
import type { Message } from "./message";
import type { Dropped } from "./queue";
import type { Presence } from "./roster";

let page: FakePage;
let client: Client;

beforeEach(() => {
  page = fakeBrowser();
});
afterEach(() => {
  client.close();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function make(options: ClientOptions = {}, url: Source<string> = "/connect"): Client {
  client = new Client(url, { random: () => 0.5, ...options });
  return client;
}

/** Connect, and answer every `$join` as a channel without history does. */
async function welcomed(param: object = {}): Promise<FakeSocket> {
  client.connect();
  await settle();
  const socket = FakeSocket.last;
  socket.welcome(param);
  for (const { cmd, channel, id } of socket.sent) {
    if (cmd === "$join") socket.receive({ channel, cmd: "$reply", id, param: {} });
  }
  await settle();
  expect(client.state).toBe("open");
  return socket;
}

/** A client that is open. */
async function opened(options: ClientOptions = {}, param: object = {}): Promise<FakeSocket> {
  make(options);
  return welcomed(param);
}

/** End the socket and open the next one. */
async function again(socket: FakeSocket): Promise<FakeSocket> {
  socket.end(1006);
  return welcomed();
}

const cmds = (socket: FakeSocket) => socket.sent.map(({ cmd }) => cmd);

describe("connecting", () => {
  test("happens by itself, after listeners could be added", async () => {
    const states: string[] = [];
    make().on("state", ({ state }) => states.push(state));
    expect(client.state).toBe("idle");
    await settle();
    expect(states).toEqual(["connecting"]);
    expect(FakeSocket.last.protocols).toEqual(["gateway.v1.json"]);
    expect(FakeSocket.last.url).toBe("wss://example.test/connect");
  });

  test("waits to be asked with autoConnect: false", async () => {
    make({ autoConnect: false });
    await settle();
    expect(FakeSocket.all).toHaveLength(0);
    client.connect();
    expect(FakeSocket.all).toHaveLength(1);
  });

  test("does not happen when closed in the same breath", async () => {
    make().close();
    await settle();
    expect(FakeSocket.all).toHaveLength(0);
  });

  test("is complete with the welcome, not before", async () => {
    make().connect();
    FakeSocket.last.open();
    await settle();
    expect(client.state).toBe("connecting");
    FakeSocket.last.welcome({ user: "ada", channels: ["lobby"] });
    await settle();
    expect(client.state).toBe("open");
    expect(client.welcome).toMatchObject({ user: "ada", channels: ["lobby"] });
  });

  test("asks a function for the URL every time", async () => {
    let number = 0;
    make({}, () => `/connect?n=${++number}`);
    await again(await welcomed());
    expect(FakeSocket.all.map(({ url }) => url.slice(-3))).toEqual(["n=1", "n=2"]);
  });

  test("each state is an event of its own", async () => {
    const opens = vi.fn();
    make().on("open", opens);
    await welcomed();
    expect(opens).toHaveBeenCalledExactlyOnceWith({ state: "open", previous: "connecting" });
  });
});

describe("tokens", () => {
  const jwt = (exp: number): string => `e30.${btoa(JSON.stringify({ exp }))}.s`;
  /** A node without heartbeats, so that silence is no reason to look closer. */
  const quiet = { heartbeat: 0 };
  const seconds = (): number => Math.floor(Date.now() / 1000);

  test("are shown as a subprotocol", async () => {
    await opened({ token: "x.y.z" });
    expect(FakeSocket.last.protocols).toEqual(["gateway.v1.json", "gateway.token.x.y.z"]);
  });

  test("may take time to get", async () => {
    await opened({ token: async () => "slow" });
    expect(FakeSocket.last.protocols[1]).toBe("gateway.token.slow");
  });

  test("are renewed before they expire", async () => {
    const tokens = [jwt(seconds() + 100), jwt(seconds() + 300)];
    const socket = await opened({ token: () => tokens.shift() ?? null }, quiet);
    const next = tokens[0];
    await vi.advanceTimersByTimeAsync(80_000);
    expect(socket.sent.at(-1)).toMatchObject({ cmd: "$auth", param: { token: next } });
    socket.reply("$auth");
    await settle();
    expect(client.state).toBe("open");
  });

  test("that do not change are not sent again", async () => {
    const token = jwt(seconds() + 100);
    const socket = await opened({ token: () => token }, quiet);
    await vi.advanceTimersByTimeAsync(99_000);
    expect(cmds(socket)).not.toContain("$auth");
  });

  test("that cannot be renewed are an error, not the end", async () => {
    const errors = vi.fn();
    let calls = 0;
    make({
      token: () => {
        if (calls++) throw new Error("signed out");
        return jwt(seconds() + 100);
      },
    }).on("error", errors);
    await welcomed(quiet);
    await vi.advanceTimersByTimeAsync(80_000);
    expect(errors).toHaveBeenCalledOnce();
    expect(client.state).toBe("open");
  });

  test("that cannot be renewed at first are asked for again, while there is time", async () => {
    const end = seconds() + 100;
    let calls = 0;
    make({
      token: () => {
        if (++calls === 2) throw new Error("no network");
        return jwt(end + calls);
      },
    }).on("error", () => {});
    const socket = await welcomed(quiet);
    await vi.advanceTimersByTimeAsync(80_000);
    expect(cmds(socket)).not.toContain("$auth");
    await vi.advanceTimersByTimeAsync(19_000);
    expect(cmds(socket)).toContain("$auth");
  });

  test("that can be had no more do not keep the page busy", async () => {
    const token = vi.fn(() => jwt(1_800_000_100));
    await opened({ token }, quiet);
    await vi.advanceTimersByTimeAsync(200_000);
    expect(token.mock.calls.length).toBeLessThan(6);
  });

  test("authenticate() renews an open connection", async () => {
    const socket = await opened({ token: "old" });
    const done = client.authenticate("new");
    expect(socket.sent.at(-1)).toMatchObject({ cmd: "$auth", param: { token: "new" } });
    socket.reply("$auth");
    await done;
    await again(socket);
    expect(FakeSocket.last.protocols[1]).toBe("gateway.token.new");
  });

  test("4401 fails until there is another token", async () => {
    const socket = await opened({ token: "old" });
    socket.end(4401);
    expect(client.state).toBe("failed");
    await client.authenticate("new");
    expect(client.state).toBe("connecting");
    expect(FakeSocket.last.protocols[1]).toBe("gateway.token.new");
  });

  test("4401 asks the function for another token", async () => {
    let token = "one";
    const socket = await opened({ token: () => token });
    token = "two";
    socket.end(4401);
    expect(client.state).toBe("waiting");
    await vi.advanceTimersByTimeAsync(250);
    expect(FakeSocket.last.protocols[1]).toBe("gateway.token.two");
    FakeSocket.last.end(4401);
    expect(client.state).toBe("failed");
  });

  test("4401 asks once: who refuses a fresh token will refuse the next", async () => {
    let number = 0;
    const socket = await opened({ token: () => `t${++number}` });
    socket.end(4401);
    await vi.advanceTimersByTimeAsync(250);
    FakeSocket.last.end(4401);
    expect(client.state).toBe("failed");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.all).toHaveLength(2);
  });

  test("4401 may come again once the fresh token was good for a connection", async () => {
    let number = 0;
    make({ token: () => `t${++number}` });
    for (const _ of [1, 2, 3]) {
      (await welcomed()).end(4401);
      expect(client.state).toBe("waiting");
    }
  });
});

describe("the end", () => {
  test("close-connection closes for good", async () => {
    const socket = await opened();
    const closes = vi.fn();
    client.on("closed", closes);
    socket.receive({ cmd: "close-connection" });
    expect(client.state).toBe("closed");
    expect(closes.mock.lastCall?.[0]).toMatchObject({ close: { reason: "close-connection" } });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.all).toHaveLength(1);
  });

  test("close() rejects what is under way and reports what waits", async () => {
    const drops: Dropped[] = [];
    const socket = await opened();
    client.on("dropped", (dropped) => drops.push(dropped));
    const sent = client.request("ask");
    socket.readyState = 2;
    const unsent = client.request("wait");
    client.close();
    await expect(sent).rejects.toMatchObject({ code: "closed" });
    await expect(unsent).rejects.toMatchObject({ code: "closed" });
    expect(drops).toMatchObject([{ reason: "closed", message: { cmd: "wait" } }]);
    await expect(client.request("late")).rejects.toMatchObject({ code: "closed" });
    expect(client.send("late")).toBe(false);
    expect(client.stats()).toMatchObject({ state: "closed", dropped: 3, pending: 0, queued: 0 });
  });

  test("nothing is left running", async () => {
    await opened({ token: () => "x" });
    void client.channel("lobby").join();
    client.close();
    await settle();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("sending", () => {
  test("goes out at once when open", async () => {
    const socket = await opened();
    expect(client.send("chat", { text: "hi" })).toBe(true);
    expect(client.channel("lobby").send("chat", { text: "ho" })).toBe(true);
    client.send("ping", null, { channel: "other" });
    expect(socket.sent).toEqual([
      { cmd: "chat", param: { text: "hi" } },
      { channel: "lobby", cmd: "chat", param: { text: "ho" } },
      { channel: "other", cmd: "ping", param: null },
    ]);
  });

  test("waits otherwise, and goes out in order after the channels are joined again", async () => {
    make();
    void client.channel("lobby").join();
    expect(client.send("one")).toBe(false);
    client.connect();
    client.send("two");
    FakeSocket.last.welcome();
    client.send("three");
    await settle();
    expect(cmds(FakeSocket.last)).toEqual(["$join"]);
    FakeSocket.last.reply("$join");
    await settle();
    expect(cmds(FakeSocket.last)).toEqual(["$join", "one", "two", "three"]);
    expect(client.stats()).toMatchObject({ state: "open", queued: 0, sent: 4 });
  });

  test("what a closing socket no longer takes waits for the next one", async () => {
    const socket = await opened();
    socket.readyState = 2;
    expect(client.send("chat")).toBe(false);
    await again(socket);
    expect(cmds(FakeSocket.last)).toEqual(["chat"]);
  });

  test("what is dropped is reported", async () => {
    const drops: Dropped[] = [];
    make({ queue: { count: 1, age: 1000 }, autoConnect: false }).on("dropped", (one) => drops.push(one));
    client.send("one");
    client.send("two");
    await vi.advanceTimersByTimeAsync(1000);
    expect(drops.map(({ message, reason }) => [message.cmd, reason])).toEqual([
      ["one", "count"],
      ["two", "age"],
    ]);
  });

  test("a listener that closes the client over a dropped message ends the connecting", async () => {
    make({ queue: { age: 1000 } }).on("dropped", () => client.close());
    client.send("one");
    client.connect();
    vi.spyOn(performance, "now").mockReturnValue(performance.now() + 5000);
    FakeSocket.last.welcome();
    await settle();
    expect(client.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("what JSON cannot hold throws at the caller", async () => {
    await opened();
    expect(() => client.send("chat", 1n)).toThrow(TypeError);
    await expect(client.request("chat", 1n)).rejects.toThrow(TypeError);
  });
});

describe("requests", () => {
  test("resolve with the handler's answer", async () => {
    const socket = await opened();
    const answer = client.request("add", [1, 2], { channel: "sums" });
    expect(socket.sent.at(-1)).toMatchObject({ channel: "sums", cmd: "add", param: [1, 2] });
    socket.reply("add", 3);
    expect(await answer).toBe(3);
  });

  test("reject with the server's code", async () => {
    const socket = await opened();
    const answer = client.channel("lobby").request("add");
    socket.reply("add", { code: "forbidden", message: "no" }, "$error");
    await expect(answer).rejects.toMatchObject({ code: "forbidden", message: "no", channel: "lobby" });
  });

  test("time out", async () => {
    await opened({ timeout: 3000 });
    const slow = expect(client.request("slow")).rejects.toMatchObject({ code: "timeout" });
    const quick = expect(client.request("slow", null, { timeout: 10 })).rejects.toMatchObject({
      code: "timeout",
    });
    await vi.advanceTimersByTimeAsync(3000);
    await Promise.all([slow, quick]);
  });

  test("are lost with the connection that carried them", async () => {
    const socket = await opened();
    const answer = client.request("add");
    socket.end();
    await expect(answer).rejects.toMatchObject({ code: "closed" });
  });

  test("that never left survive a reconnect", async () => {
    make();
    const answer = client.request("add");
    client.connect();
    FakeSocket.last.end();
    const socket = await welcomed();
    socket.reply("add", 3);
    expect(await answer).toBe(3);
  });

  test("that are aborted while they wait are not sent", async () => {
    make();
    const controller = new AbortController();
    const answer = client.request("add", null, { signal: controller.signal });
    controller.abort();
    await expect(answer).rejects.toMatchObject({ code: "aborted" });
    expect(cmds(await welcomed())).toEqual([]);
    expect(client.stats().dropped).toBe(0);
  });

  test("that are dropped reject", async () => {
    make({ queue: { count: 1 }, autoConnect: false });
    const answer = client.request("add");
    client.send("chat");
    await expect(answer).rejects.toMatchObject({ code: "closed" });
  });
});

describe("messages", () => {
  const chat = (text: string, more: object = {}) => ({
    channel: "lobby",
    cmd: "chat",
    param: { text },
    ...more,
  });

  test("reach the listeners of their command and channel", async () => {
    const heard: string[] = [];
    const socket = await opened();
    client.channel("lobby").on("chat", ({ text }, { from }) => heard.push(`chat ${text} ${from}`));
    client.channel("lobby").on("*", (_, { cmd }) => heard.push(`any ${cmd}`));
    client.channel("other").on("chat", () => heard.push("wrong"));
    client.channel("").on("note", (text) => heard.push(text));
    client.on("message", ({ cmd }) => heard.push(`all ${cmd}`));
    socket.receive(chat("hi", { from: "ada" }));
    socket.receive({ cmd: "note", param: "direct" });
    expect(heard).toEqual(["chat hi ada", "any chat", "all chat", "direct", "all note"]);
  });

  test("of the gateway itself are not the application's", async () => {
    const heard = vi.fn();
    const socket = await opened();
    client.on("message", heard);
    socket.receive({ cmd: "$reply", id: 99 });
    expect(heard).not.toHaveBeenCalled();
  });

  test("a listener that throws harms nobody", async () => {
    vi.stubGlobal("reportError", vi.fn());
    const heard: string[] = [];
    const socket = await opened();
    client.channel("lobby").on("chat", () => {
      throw new Error("mine");
    });
    client.channel("lobby").on("chat", ({ text }) => heard.push(text));
    socket.receive(chat("one"));
    socket.receive(chat("two"));
    expect(heard).toEqual(["one", "two"]);
    expect(reportError).toHaveBeenCalledTimes(2);
  });

  test("errors without a request are told, or warned of", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    const errors = vi.fn();
    const socket = await opened();
    const param = { code: "rate-limited", message: "slow down", retry_after: 2 };
    socket.receive({ cmd: "$error", param });
    expect(warn).toHaveBeenCalledOnce();
    client.on("error", errors);
    socket.receive({ cmd: "$error", channel: "lobby", param });
    socket.receive("nonsense");
    expect(errors.mock.calls.map(([{ code, channel, retryAfter }]) => [code, channel, retryAfter])).toEqual([
      ["rate-limited", "lobby", 2000],
      ["bad-message", undefined, undefined],
    ]);
  });
});

describe("channels", () => {
  const texts: string[] = [];
  const gaps: unknown[] = [];

  /** A client in a lobby with history, at offset 10 of epoch e1. */
  async function inLobby(): Promise<FakeSocket> {
    texts.length = gaps.length = 0;
    const socket = await opened();
    const lobby = client.channel("lobby");
    lobby.on("chat", (text) => texts.push(text));
    client.on("gap", (gap) => gaps.push(gap));
    const joined = lobby.join();
    socket.reply("$join", { epoch: "e1", offset: 10, recovered: false });
    await joined;
    return socket;
  }

  const chat = (offset: number): Message => ({ channel: "lobby", cmd: "chat", param: `m${offset}`, offset });

  test("are the same object for the same name", () => {
    make();
    expect(client.channel("lobby")).toBe(client.channel("lobby"));
  });

  test("join() resolves with the node's confirmation, once for all callers", async () => {
    const socket = await opened();
    const lobby = client.channel("lobby");
    const joined = Promise.all([lobby.join(), lobby.join()]);
    expect(cmds(socket)).toEqual(["$join"]);
    socket.reply("$join", {});
    await joined;
    await lobby.join();
    expect(cmds(socket)).toEqual(["$join"]);
    expect(lobby.wanted).toBe(true);
  });

  test("asked for while connecting are joined with the others", async () => {
    make();
    client.connect();
    void client.channel("a").join();
    FakeSocket.last.welcome();
    void client.channel("b").join();
    await settle();
    expect(FakeSocket.last.sent.map(({ channel }) => channel)).toEqual(["a", "b"]);
  });

  test("that refuse reject, are told as an error, and not tried again", async () => {
    const errors = vi.fn();
    const socket = await opened();
    client.on("error", errors);
    const joined = client.channel("secret").join();
    socket.reply("$join", { code: "forbidden", message: "no" }, "$error");
    await expect(joined).rejects.toMatchObject({ code: "forbidden", channel: "secret" });
    expect(errors).toHaveBeenCalledOnce();
    expect(cmds(await again(socket))).toEqual([]);
  });

  test("that are unavailable are tried again when the node says", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const socket = await opened();
    client.on("error", () => {});
    const joined = client.channel("lobby").join();
    socket.reply("$join", { code: "unavailable", message: "later", retry_after: 3 }, "$error");
    await vi.advanceTimersByTimeAsync(2999);
    expect(cmds(socket)).toEqual(["$join"]);
    await vi.advanceTimersByTimeAsync(1);
    socket.reply("$join", {});
    await joined;
  });

  test("one slow or refused channel does not keep the connection from opening", async () => {
    make();
    client.on("error", () => {});
    for (const name of ["good", "bad", "slow"]) void client.channel(name).join();
    client.connect();
    FakeSocket.last.welcome();
    const [good, bad] = FakeSocket.last.sent;
    FakeSocket.last.receive({ cmd: "$reply", id: good?.id, param: {} });
    FakeSocket.last.receive({ cmd: "$error", id: bad?.id, param: { code: "forbidden" } });
    await vi.advanceTimersByTimeAsync(4999);
    expect(client.state).toBe("connecting");
    await vi.advanceTimersByTimeAsync(1);
    expect(client.state).toBe("open");
    FakeSocket.last.reply("$join", { epoch: "e1", offset: 3 });
    await settle();
    expect(client.channel("slow").position).toEqual({ epoch: "e1", offset: 3 });
  });

  test("come back with their position, in one round trip", async () => {
    const socket = await inLobby();
    socket.receive(chat(11));
    void client.channel("other").join();
    socket.end();
    client.connect();
    FakeSocket.last.welcome();
    expect(FakeSocket.last.sent).toMatchObject([
      { cmd: "$join", channel: "lobby", param: { since: { epoch: "e1", offset: 11 } } },
      { cmd: "$join", channel: "other", param: null },
    ]);
  });

  test("with history miss nothing and repeat nothing", async () => {
    const socket = await inLobby();
    for (const offset of [11, 12, 12]) socket.receive(chat(offset));
    socket.end();
    client.connect();
    FakeSocket.last.welcome();
    for (const offset of [15, 13, 14]) FakeSocket.last.receive(chat(offset));
    FakeSocket.last.reply("$join", { epoch: "e1", offset: 15, recovered: true });
    await settle();
    FakeSocket.last.receive(chat(16));
    expect(texts).toEqual(["m11", "m12", "m13", "m14", "m15", "m16"]);
    expect(gaps).toEqual([]);
    expect(client.stats()).toMatchObject({ duplicates: 1, gaps: 0, connects: 2 });
  });

  test("announce what they could not recover", async () => {
    const socket = await inLobby();
    const heard = vi.fn();
    client.channel("lobby").on("$gap", heard);
    socket.end();
    client.connect();
    FakeSocket.last.welcome();
    FakeSocket.last.receive(chat(3));
    FakeSocket.last.reply("$join", { epoch: "e2", offset: 3, recovered: false });
    await settle();
    const gap = { since: { epoch: "e1", offset: 10 }, epoch: "e2" };
    expect(gaps).toEqual([{ ...gap, channel: "lobby" }]);
    expect(heard).toHaveBeenCalledExactlyOnceWith(gap, { channel: "lobby", cmd: "$gap", param: gap });
    expect(texts).toEqual(["m3"]);
  });

  test("without history say that something may be missing", async () => {
    const socket = await opened();
    const joined = client.channel("lobby").join();
    socket.reply("$join", {});
    await joined;
    client.on("gap", (gap) => gaps.push(gap));
    gaps.length = 0;
    await again(socket);
    expect(gaps).toEqual([{ channel: "lobby", since: null, epoch: null }]);
  });

  test("pass on the gaps that the node announces", async () => {
    const socket = await inLobby();
    socket.receive({ channel: "lobby", cmd: "$gap", param: null });
    expect(gaps).toEqual([{ channel: "lobby", since: { epoch: "e1", offset: 10 }, epoch: null }]);
  });

  test("that were left are not joined again", async () => {
    const socket = await inLobby();
    const left = client.channel("lobby").leave();
    expect(socket.sent.at(-1)).toMatchObject({ cmd: "$leave", channel: "lobby" });
    socket.reply("$leave");
    await left;
    const next = await again(socket);
    expect(cmds(next)).toEqual([]);
    const repeated = client.channel("lobby").leave();
    next.reply("$leave");
    await repeated;
  });

  test("that the server has us in are left as well", async () => {
    const socket = await opened({}, { channels: ["lobby"] });
    void client.channel("lobby").leave();
    expect(socket.sent.at(-1)).toMatchObject({ cmd: "$leave", channel: "lobby" });
  });

  test("reject their joins when the client is closed, and are joined when it connects again", async () => {
    make({ autoConnect: false });
    const lobby = client.channel("lobby");
    const joined = lobby.join();
    client.close();
    await expect(joined).rejects.toMatchObject({ code: "closed", channel: "lobby" });
    await expect(lobby.join()).rejects.toMatchObject({ code: "closed" });
    await expect(client.channel("attic").join()).rejects.toMatchObject({ code: "closed" });
    expect(cmds(await welcomed()).sort()).toEqual(["$join", "$join"]);
    await lobby.join();
  });

  test("reject their joins when the client is refused for good", async () => {
    const socket = await opened();
    const joined = client.channel("lobby").join();
    socket.end(4403);
    await expect(joined).rejects.toMatchObject({ code: "closed" });
    expect(client.state).toBe("failed");
  });

  test("left before the answer ignore it", async () => {
    const socket = await opened();
    const lobby = client.channel("lobby");
    const joined = lobby.join();
    void lobby.leave();
    await expect(joined).rejects.toMatchObject({ code: "aborted" });
    socket.reply("$join", { epoch: "e1", offset: 3 });
    await settle();
    expect(lobby.position).toBeNull();
  });

  test("left while offline need no connection", async () => {
    make({ autoConnect: false });
    const lobby = client.channel("lobby");
    void lobby.join();
    await lobby.leave();
    expect(cmds(await welcomed())).toEqual([]);
  });

  test("tell who is here and what was said", async () => {
    const socket = await inLobby();
    const presence = client.channel("lobby").presence();
    socket.reply("$presence", { count: 1, users: ["ada"] });
    expect(await presence).toEqual({ count: 1, users: ["ada"] });
    const history = client.channel("lobby").history({ limit: 5 });
    expect(socket.sent.at(-1)).toMatchObject({ cmd: "$history", channel: "lobby", param: { limit: 5 } });
    socket.reply("$history", { messages: [], epoch: "e1", offset: 10 });
    expect(await history).toEqual({ messages: [], epoch: "e1", offset: 10 });
  });

  test("hold back what arrives between a failed join and the next try", async () => {
    const socket = await inLobby();
    client.on("error", () => {});
    socket.end();
    client.connect();
    const next = FakeSocket.last;
    next.welcome();
    next.reply("$join", { code: "unavailable" }, "$error");
    await settle();
    next.receive(chat(12));
    await vi.advanceTimersByTimeAsync(4000);
    expect(next.sent.at(-1)).toMatchObject({ cmd: "$join", param: { since: { offset: 10 } } });
    next.receive(chat(11));
    next.receive(chat(12));
    next.reply("$join", { epoch: "e1", offset: 12, recovered: true });
    await settle();
    expect(texts).toEqual(["m11", "m12"]);
  });
});

describe("messages()", () => {
  const chat = (text: string): object => ({ channel: "lobby", cmd: "chat", param: text });

  async function lobby(): Promise<FakeSocket> {
    const socket = await opened();
    const joined = client.channel("lobby").join();
    socket.reply("$join", {});
    await joined;
    return socket;
  }

  test("iterates over what comes, in order, until the loop is left", async () => {
    const socket = await lobby();
    const messages = client.channel("lobby").messages("chat");
    for (const text of ["one", "two"]) socket.receive(chat(text));
    const texts: string[] = [];
    for await (const { param } of messages) {
      texts.push(param);
      if (param === "two") void settle().then(() => socket.receive(chat("three")));
      if (param === "three") break;
    }
    expect(texts).toEqual(["one", "two", "three"]);
    expect(await messages.next()).toEqual({ done: true, value: undefined });
  });

  test("drops the oldest for a slow reader, and says so", async () => {
    const drops: Dropped[] = [];
    const socket = await lobby();
    client.on("dropped", (dropped) => drops.push(dropped));
    const messages = client.channel("lobby").messages("*", { limit: 2 });
    for (const text of ["one", "two", "three"]) socket.receive(chat(text));
    expect(drops).toMatchObject([{ message: chat("one"), reason: "slow" }]);
    expect(client.stats().dropped).toBe(1);
    expect((await messages.next()).value?.param).toBe("two");
  });

  test.each(["leave", "close"])("ends with %s(), after what had come", async (how) => {
    const socket = await lobby();
    const channel = client.channel("lobby");
    const messages = channel.messages();
    const idle = channel.messages().next();
    socket.receive(chat("last"));
    if (how === "leave") void channel.leave();
    else client.close();
    expect((await idle).value?.param).toBe("last");
    const texts = [];
    for await (const { param } of messages) texts.push(param);
    expect(texts).toEqual(["last"]);
  });

  test("goes on across reconnects, and has the gaps where they belong", async () => {
    const socket = await lobby();
    const channel = client.channel("lobby");
    const gaps = channel.messages("$gap");
    const messages = channel.messages("chat");
    const next = await again(socket);
    next.receive(chat("after"));
    expect((await gaps.next()).value?.param).toEqual({ since: null, epoch: null });
    expect((await messages.next()).value?.param).toBe("after");
  });

  test("return() lets a waiting reader go", async () => {
    await lobby();
    const messages = client.channel("lobby").messages();
    const waiting = [messages.next(), messages.next()];
    await messages.return?.();
    expect(await Promise.all(waiting)).toMatchObject([{ done: true }, { done: true }]);
  });
});

describe("watchPresence()", () => {
  let seen: Presence[];

  /** A client in a lobby, watching, where the node says that these are there. */
  async function watching(users: string[]): Promise<FakeSocket> {
    seen = [];
    const socket = await opened();
    const lobby = client.channel("lobby");
    lobby.watchPresence((presence) => seen.push(presence));
    const joined = lobby.join();
    socket.reply("$join", {});
    await joined;
    socket.reply("$presence", { count: users.length, users });
    await settle();
    return socket;
  }

  const update = (userID: string, connected: boolean): object => ({
    channel: "lobby",
    cmd: "online-update",
    param: { userID, connected },
  });

  test("tells who is there, and every change", async () => {
    const socket = await watching(["ada"]);
    socket.receive(update("grace", true));
    socket.receive(update("ada", false));
    expect(seen).toEqual([
      { count: 1, users: ["ada"] },
      { count: 2, users: ["ada", "grace"] },
      { count: 1, users: ["grace"] },
    ]);
  });

  test("asks at once where the channel is joined already", async () => {
    const socket = await watching(["ada"]);
    const late = vi.fn();
    client.channel("lobby").watchPresence(late);
    socket.reply("$presence", { count: 1, users: ["ada"] });
    await settle();
    expect(late).toHaveBeenCalledExactlyOnceWith({ count: 1, users: ["ada"] });
  });

  test("fakes no coming and going on a reconnect", async () => {
    const socket = await watching(["ada", "grace"]);
    const next = await again(socket);
    expect(seen).toHaveLength(1);
    next.reply("$presence", { count: 2, users: ["ada", "linus"] });
    await settle();
    expect(seen).toEqual([
      { count: 2, users: ["ada", "grace"] },
      { count: 2, users: ["ada", "linus"] },
    ]);
  });

  test("prefers a change to an answer that was on its way", async () => {
    const socket = await watching(["ada"]);
    const next = await again(socket);
    next.receive(update("grace", true));
    next.reply("$presence", { count: 1, users: ["ada"] });
    await settle();
    expect(seen.at(-1)).toEqual({ count: 2, users: ["ada", "grace"] });
  });

  test("counts a crowd, and asks again when it can be named", async () => {
    const socket = await watching(["ada"]);
    socket.receive({ channel: "lobby", cmd: "online-count", param: { count: 5000 } });
    expect(seen.at(-1)).toEqual({ count: 5000 });
    socket.receive(update("ada", false));
    socket.reply("$presence", { count: 1, users: ["grace"] });
    await settle();
    expect(seen.at(-1)).toEqual({ count: 1, users: ["grace"] });
  });

  test("asks again what was refused for a passing reason, and at the next change", async () => {
    const socket = await watching(["ada"]);
    const next = await again(socket);
    next.reply("$presence", { code: "rate-limited", retry_after: 3 }, "$error");
    await vi.advanceTimersByTimeAsync(6000);
    const asked = (): number => cmds(next).filter((cmd) => cmd === "$presence").length;
    expect(asked()).toBe(2);
    next.reply("$presence", { code: "forbidden" }, "$error");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(asked()).toBe(2);
    next.receive(update("grace", true));
    expect(seen.at(-1)).toEqual({ count: 2, users: ["ada", "grace"] });
  });

  test("stops when asked to, a question under way included", async () => {
    const socket = await watching(["ada"]);
    const late = vi.fn();
    client.channel("lobby").watchPresence(late)();
    socket.reply("$presence", { count: 1, users: ["ada"] });
    socket.receive(update("grace", true));
    await settle();
    expect(late).not.toHaveBeenCalled();
  });
});

test("reconnect() replaces the connection and keeps what waits", async () => {
  const socket = await opened();
  client.reconnect();
  expect(socket.readyState).toBe(2);
  client.send("chat");
  expect(cmds(await welcomed())).toEqual(["chat"]);
});

test("a page that becomes visible notices a dead connection within two seconds", async () => {
  await opened();
  page.visible(true);
  await vi.advanceTimersByTimeAsync(2000);
  expect(client.state).toBe("connecting");
  expect(FakeSocket.all).toHaveLength(2);
});

describe("what cannot be tried", () => {
  const PAGE = "<!doctype html><title>502</title>";
  const failures = () => {
    const codes: string[] = [];
    client.on("error", ({ code }) => codes.push(code));
    return codes;
  };

  test.each([
    ["a URL", PAGE, {}, "invalid-url", /<!doctype html>/],
    ["a URL of another kind", "localhost:8080/connect", {}, "invalid-url", /localhost:8080/],
    ["a token", "/connect", { token: PAGE }, "invalid-token", /a string that/],
    ["a token with white space", "/connect", { token: "e30.e30.c2ln\n" }, "invalid-token", /a string that/],
    ["a token that is too long", "/connect", { token: "x".repeat(20_000) }, "invalid-token", /a string that/],
    [
      "a token that is no string",
      "/connect",
      { token: { jwt: "x" } as never },
      "invalid-token",
      /an? object that/,
    ],
  ])("as %s fails once, by its name", async (_, url, options, code, reason) => {
    make(options, url);
    const codes = failures();
    const reasons: (string | undefined)[] = [];
    client.on("failed", ({ close }) => reasons.push(close?.reason));
    await vi.advanceTimersByTimeAsync(600_000);
    expect(codes).toEqual([code]);
    expect(reasons).toEqual([expect.stringMatching(reason)]);
    expect(FakeSocket.all).toHaveLength(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each(["token", "url"])("is asked for five times where a function gives the %s", async (which) => {
    const answer = vi.fn(async () => PAGE);
    make(which === "token" ? { token: answer } : {}, which === "url" ? answer : "/connect");
    const codes = failures();
    await vi.advanceTimersByTimeAsync(600_000);
    expect(client.state).toBe("failed");
    expect(answer).toHaveBeenCalledTimes(5);
    expect(codes).toEqual(Array(5).fill(`invalid-${which}`));
    expect(vi.getTimerCount()).toBe(0);
  });

  test("is forgotten when the function comes to its senses", async () => {
    const answers = [PAGE, PAGE, PAGE, PAGE, "good", PAGE, PAGE];
    make({ token: () => answers.shift() ?? "better" });
    failures();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(FakeSocket.last.protocols).toEqual(["gateway.v1.json", "gateway.token.good"]);
    FakeSocket.last.end();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(FakeSocket.last.protocols[1]).toBe("gateway.token.better");
  });

  test("is asked for as long as it takes where the function fails, as on a broken network", async () => {
    const token = vi.fn(async () => Promise.reject(new Error("offline")));
    make({ token });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(token.mock.calls.length).toBeGreaterThan(20);
    expect(client.state).not.toBe("failed");
  });

  test("is not shown to the open connection either", async () => {
    const socket = await opened({ token: "old" });
    await expect(client.authenticate("e30 ")).rejects.toMatchObject({ code: "invalid-token" });
    expect(cmds(socket)).not.toContain("$auth");
    expect(client.state).toBe("open");
  });

  test("ends whatever waits for it, and whatever comes later, at once", async () => {
    make({ autoConnect: false }, PAGE);
    failures();
    const lobby = client.channel("lobby");
    const before = [client.request("add"), lobby.join(), lobby.presence()].map((one) =>
      expect(one).rejects.toMatchObject({ code: "closed" }),
    );
    client.connect();
    expect(client.state).toBe("failed");
    await Promise.all(before);
    await expect(client.request("add")).rejects.toMatchObject({ code: "closed" });
    await expect(lobby.request("add")).rejects.toMatchObject({ code: "closed" });
    await expect(lobby.join()).rejects.toMatchObject({ code: "closed" });
    expect(client.send("chat")).toBe(false);
    expect(client.stats()).toMatchObject({ queued: 0, pending: 0 });
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("a channel that the server takes us out of", () => {
  async function taken(reason = "forbidden") {
    const socket = await opened();
    const lobby = client.channel("lobby");
    const told: unknown[] = [];
    client.on("left", (left) => told.push(left));
    client.on("message", ({ cmd }) => told.push(cmd));
    lobby.on("$left", (left) => told.push(left));
    lobby.on("*", () => told.push("*"));
    void lobby.join();
    socket.reply("$join");
    await settle();
    const messages = lobby.messages("chat");
    socket.receive({ channel: "lobby", cmd: "$left", param: { reason } });
    return { lobby, told, messages, socket };
  }

  test("is told with its reason, and is over for its readers", async () => {
    const { lobby, told, messages } = await taken("removed");
    expect(told).toEqual([{ reason: "removed" }, { channel: "lobby", reason: "removed" }]);
    expect(lobby.wanted).toBe(false);
    expect(await messages.next()).toEqual({ done: true, value: undefined });
  });

  test("is not joined again by itself, but when asked to", async () => {
    const { lobby, socket } = await taken();
    const next = await again(socket);
    expect(cmds(next)).not.toContain("$join");
    const joined = lobby.join();
    next.reply("$join");
    await joined;
    expect(cmds(await again(next))).toContain("$join");
  });

  test("while it is being joined anew waits for that answer", async () => {
    const { lobby, socket } = await taken();
    const joined = lobby.join();
    socket.receive({ channel: "lobby", cmd: "$left", param: { reason: "forbidden" } });
    socket.reply("$join");
    await joined;
    expect(lobby.wanted).toBe(true);
  });
});
