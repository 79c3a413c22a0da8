// Random histories, each from a seed that a failure names: whatever the order in which the network,
// the page and the application act, the client stays within its rules.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Channel } from "./channel";
import { Client } from "./client";
import { type FakePage, FakeSocket, fakeBrowser, seeded, settle } from "./fakes";
import type { Message } from "./message";
import { type State, TRANSITIONS } from "./states";

const SEEDS = Array.from({ length: 40 }, (_, index) => index + 1);
const CODES = [1000, 1001, 1006, 1008, 1011, 1012, 1013, 4008, 4401, 4403, 4408, 4410, 4429];
const NAMES = ["a", "b", "c"];

let page: FakePage;
let random: () => number;
let client: Client;

const below = (limit: number): number => Math.floor(random() * limit);
const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T;

beforeEach(() => {
  page = fakeBrowser();
  vi.stubGlobal("reportError", () => {});
  vi.spyOn(Math, "random").mockImplementation(() => random());
});
afterEach(() => {
  client.close();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

describe("the state machine", () => {
  /** Numbers of the messages that were sent to a socket, or dropped. */
  let sent: number[];
  let dropped: number[];
  let written: number;
  let unsettled: number;
  let reading: number;
  let illegal: string[];
  /** Whether listeners do nothing of their own. */
  let calm: boolean;

  function start(seed: number): void {
    random = seeded(seed);
    FakeSocket.all = [];
    sent = [];
    dropped = [];
    written = unsettled = reading = 0;
    illegal = [];
    calm = false;
    let state: State = "idle";
    let token = 0;
    client = new Client("/connect", {
      autoConnect: random() < 0.5,
      random,
      queue: { count: 5, age: 30_000 },
      token: () => {
        if (random() < 0.1) throw new Error("no token");
        const fresh = `t${random() < 0.5 ? ++token : token}`;
        return random() < 0.5 ? fresh : Promise.resolve(fresh);
      },
    });
    client.on("error", () => {});
    client.on("dropped", ({ message }) => message.cmd === "n" && dropped.push(message.param as number));
    client.on("state", (change) => {
      if (change.previous !== state) illegal.push(`${change.previous} was ${state}`);
      if (!TRANSITIONS[change.previous].includes(change.state)) {
        illegal.push(`${change.previous} -> ${change.state}`);
      }
      state = change.state;
      const mood = calm ? 1 : random();
      if (mood < 0.02) client.close();
      else if (mood < 0.04) client.connect();
      else if (mood < 0.06) client.reconnect();
      else if (mood < 0.08) throw new Error("a listener's own trouble");
    });
  }

  async function read(channel: Channel): Promise<void> {
    reading++;
    for await (const _ of channel.messages()) if (random() < 0.2) break;
    reading--;
  }

  const socketEvents: ((socket: FakeSocket) => void)[] = [
    (socket) => socket.readyState === 0 && socket.open(),
    (socket) => socket.readyState < 2 && socket.welcome(),
    (socket) => socket.readyState < 2 && socket.welcome(),
    (socket) => socket.end(pick(CODES), `retry_after=${below(5)}`),
    (socket) => socket.receive({ channel: pick(NAMES), cmd: "chat", offset: below(9) }),
    (socket) => socket.receive({ cmd: "close-connection" }),
    (socket) => socket.receive("nonsense"),
    (socket) => {
      const request = pick([...socket.sent, null]);
      const ok = random() < 0.8;
      const param = ok ? { epoch: pick(["e1", "e2", null]), offset: below(9) } : { code: "unavailable" };
      if (request?.id) socket.receive({ cmd: ok ? "$reply" : "$error", id: request.id, param });
    },
  ];

  const actions: (() => void)[] = [
    () => client.connect(),
    () => random() < 0.3 && client.close(),
    () => client.reconnect(),
    () => page.online(random() < 0.7),
    () => page.visible(random() < 0.7),
    () => page.freeze(),
    () => page.resume(),
    () => page.hide(),
    () => page.show(true),
    () => void client.channel(pick(NAMES)).join(),
    () =>
      void client
        .channel(pick(NAMES))
        .leave()
        .catch(() => {}),
    () => void client.authenticate(`mine${below(3)}`).catch(() => {}),
    () => void read(client.channel(pick(NAMES))),
    () => client.channel(pick(NAMES)).watchPresence(() => {}),
    () => void client.send("n", written++),
    () => {
      unsettled++;
      const settled = () => unsettled--;
      client.request("ask", null, { timeout: below(20_000) }).then(settled, settled);
    },
    ...Array.from({ length: 8 }, () => () => {
      if (FakeSocket.all.length) pick(socketEvents)(FakeSocket.last);
    }),
    // What a socket of an earlier time still says.
    () => {
      if (FakeSocket.all.length > 1) pick(socketEvents)(pick(FakeSocket.all.slice(0, -1)));
    },
    () => vi.advanceTimersByTime(below(2) ? below(500) : below(30_000)),
  ];

  function check(): void {
    expect(illegal).toEqual([]);
    const { state } = client;
    const alive = FakeSocket.alive.length;
    expect(alive).toBeLessThanOrEqual(1);
    if (state === "open") expect(FakeSocket.last.readyState).toBe(1);
    else if (state !== "connecting") expect(alive).toBe(0);
    if (state === "waiting" || state === "connecting" || state === "open") {
      expect(vi.getTimerCount()).toBeGreaterThan(0);
    }
    sent = FakeSocket.all.flatMap((socket) =>
      socket.sent.filter(({ cmd }) => cmd === "n").map(({ param }) => param as number),
    );
    expect(sent).toEqual([...new Set(sent)].sort((a, b) => a - b));
    expect(sent.filter((number) => dropped.includes(number))).toEqual([]);
  }

  test.each(SEEDS)("keeps its rules, seed %i", async (seed) => {
    for (let run = 0; run < 10; run++) {
      start(seed * 1000 + run);
      for (let step = 0; step < 60; step++) {
        pick(actions)();
        if (random() < 0.6) await settle();
        check();
      }
      await settle();
      calm = true;
      // Whoever began to read from a closed client reads until the next end.
      client.connect();
      client.close();
      client.close();
      await settle();
      check();
      expect(client.state).toBe("closed");
      expect([...sent, ...dropped].sort((a, b) => a - b)).toEqual(
        Array.from({ length: written }, (_, i) => i),
      );
      const sockets = FakeSocket.all.length;
      await vi.advanceTimersByTimeAsync(120_000);
      expect(FakeSocket.all).toHaveLength(sockets);
      expect(unsettled).toBe(0);
      expect(reading).toBe(0);
      expect(client.stats()).toMatchObject({ queued: 0, pending: 0 });
    }
  });
});

describe("a channel with history", () => {
  /** The server's side of one channel: what it keeps, under which epoch, and the socket that is in. */
  let history: Message[];
  let epoch: string;
  let top: number;
  let member: FakeSocket | null;
  /** What the client delivered: `epoch:offset`, or `gap`. */
  let heard: string[];

  const isMember = (): boolean => member === FakeSocket.last && member.readyState === 1;
  const offsetOf = ({ offset = 0 }: Message): number => offset;

  function publish(): void {
    const message = { channel: "lobby", cmd: "n", param: `${epoch}:${++top}`, offset: top };
    history.push(message);
    if (isMember()) FakeSocket.last.receive(message);
  }

  /** Answer a join as a node does; what is published meanwhile may overtake what it resends. */
  function answer(): void {
    const socket = FakeSocket.last;
    const join = socket.sent.reverse().find(({ cmd }) => cmd === "$join");
    if (!join || isMember() || socket.readyState !== 1) return;
    const since = (join.param as { since?: { epoch: string; offset: number } } | null)?.since;
    const missed = since ? history.filter((message) => offsetOf(message) > since.offset) : [];
    const recovered = since?.epoch === epoch && missed.length === top - since.offset;
    member = socket;
    for (const message of recovered ? missed : []) {
      if (random() < 0.2) publish();
      socket.receive(message);
    }
    socket.receive({ cmd: "$reply", id: join.id, param: { epoch, offset: top, recovered } });
  }

  function loseHistory(): void {
    [epoch, top, history] = [`${epoch}x`, 0, []];
    if (isMember()) FakeSocket.last.receive({ channel: "lobby", cmd: "$gap", param: { epoch } });
  }

  const moves: (() => void)[] = [
    publish,
    publish,
    publish,
    answer,
    answer,
    () => FakeSocket.last.readyState === 0 && FakeSocket.last.welcome(),
    () => random() < 0.3 && FakeSocket.last.end(),
    () => random() < 0.2 && history.splice(0, below(9)),
    () => random() < 0.1 && loseHistory(),
    // A copy, as when a node re-reads its history.
    () => isMember() && history.length && FakeSocket.last.receive(pick(history)),
    () => vi.advanceTimersByTime(below(2000)),
  ];

  test.each(SEEDS)("delivers once and in order, and tells of every gap, seed %i", async (seed) => {
    random = seeded(seed);
    [history, epoch, top, member, heard] = [[], "e", 0, null, []];
    client = new Client("/connect", { random, maxDelay: 2000 });
    client.on("error", () => {});
    client.channel("lobby").on("n", (name) => heard.push(name));
    client.channel("lobby").on("$gap", () => heard.push("gap"));
    void client.channel("lobby").join();
    client.connect();
    for (let step = 0; step < 400; step++) {
      pick(moves)();
      await settle();
    }
    const names = heard.filter((name) => name !== "gap");
    expect(names.length).toBeGreaterThan(5);
    expect(new Set(names).size).toBe(names.length);
    heard.reduce((before, now) => {
      if (before !== "gap" && now !== "gap") expect(now).toBe(after(before));
      return now;
    });
  });

  /** The name of the message that follows. */
  function after(name: string): string {
    const [before, offset] = name.split(":");
    return `${before}:${Number(offset) + 1}`;
  }
});
