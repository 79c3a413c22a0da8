import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Client, type ClientOptions } from "./client";
import { FakeSocket, fakeBrowser, settle } from "./fakes";
import { MockServer } from "./testing";
import { now, Timer } from "./timer";

const DAY = 86_400_000;
const NEVER = [0, Infinity];
/** On either side of the longest time that setTimeout counts, which is 24.9 days. */
const LONG = [24 * DAY, 25 * DAY, 30 * DAY, 75 * DAY];

let client: Client | undefined;

beforeEach(() => void fakeBrowser());
afterEach(() => {
  client?.close();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Make a client, and bring it where the limit counts; what it returns tells whether the limit was reached. */
const LIMITS: Record<string, (time: number) => Promise<() => boolean>> = {
  async timeout(timeout) {
    const socket = await opened({ timeout });
    return waits(() => client?.request("slow"), socket);
  },
  async "timeout of a request"(timeout) {
    const socket = await opened({});
    return waits(() => client?.request("slow", null, { timeout }), socket);
  },
  async connectTimeout(connectTimeout) {
    make({ connectTimeout });
    await settle();
    return () => client?.state !== "connecting";
  },
  async probeTimeout(probeTimeout) {
    await opened({ probeTimeout }, 0);
    document.dispatchEvent(new Event("visibilitychange"));
    return () => client?.state !== "open";
  },
  async "queue.age"(age) {
    make({ queue: { age }, autoConnect: false });
    const dropped: unknown[] = [];
    client?.on("dropped", (one) => dropped.push(one));
    client?.send("chat");
    return () => dropped.length > 0;
  },
};

function make(options: ClientOptions): Client {
  client = new Client("/connect", { random: () => 0.5, ...options });
  return client;
}

async function opened(options: ClientOptions, heartbeat = 0): Promise<FakeSocket> {
  make(options);
  await settle();
  FakeSocket.last.welcome({ heartbeat });
  await settle();
  return FakeSocket.last;
}

function waits(ask: () => Promise<unknown> | undefined, socket: FakeSocket): () => boolean {
  let code = "";
  ask()?.catch((error) => {
    code = error.code;
  });
  expect(socket.sent.at(-1)?.cmd).toBe("slow");
  return () => code === "timeout";
}

describe.each(Object.keys(LIMITS))("%s", (name) => {
  test.each(NEVER)("%d is no limit", async (time) => {
    const isOver = await LIMITS[name]?.(time);
    await vi.advanceTimersByTimeAsync(100 * DAY);
    expect(isOver?.()).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each(LONG)("%d ms are as long as they are, and no busy timer", async (time) => {
    const setting = vi.spyOn(globalThis, "setTimeout");
    const isOver = await LIMITS[name]?.(time);
    await vi.advanceTimersByTimeAsync(time - 1);
    expect(isOver?.()).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(isOver?.()).toBe(true);
    expect(setting.mock.calls.length).toBeLessThan(20);
  });
});

describe("what is no time is refused by its name", () => {
  const OPTIONS = ["timeout", "connectTimeout", "probeTimeout", "firstDelay", "maxDelay", "stableAfter"];
  test.each(OPTIONS)("%s", (name) => {
    for (const wrong of [-1, Number.NaN]) {
      expect(() => new Client("/connect", { [name]: wrong, autoConnect: false })).toThrow(RangeError);
      expect(() => new Client("/connect", { [name]: wrong, autoConnect: false })).toThrow(name);
    }
    expect(() => new Client("/connect", { [name]: undefined, autoConnect: false })).not.toThrow();
  });

  test("queue.age, latency, and the timeout of a request", async () => {
    expect(() => new Client("/connect", { queue: { age: -1 } })).toThrow("queue.age");
    expect(() => new MockServer({ latency: Number.NaN })).toThrow("latency");
    await opened({});
    await expect(client?.request("add", 1, { timeout: -1 })).rejects.toThrow("timeout");
    expect(client?.stats().pending).toBe(0);
  });
});

test("a first pause of 0 comes at once, and the next ones grow", async () => {
  make({ firstDelay: 0 });
  await settle();
  FakeSocket.last.end();
  await settle();
  for (const pause of [250, 500]) {
    FakeSocket.last.end();
    await vi.advanceTimersByTimeAsync(pause - 1);
    expect(client?.state).toBe("waiting");
    await vi.advanceTimersByTimeAsync(1);
    expect(client?.state).toBe("connecting");
  }
});

test.each(NEVER)("a maxDelay of %d lets the pauses grow", async (maxDelay) => {
  make({ maxDelay });
  await settle();
  let delay: number | undefined;
  client?.on("waiting", (change) => {
    delay = change.delay;
  });
  for (let failures = 0; failures < 30; failures++) {
    FakeSocket.last.end();
    await vi.advanceTimersByTimeAsync(delay ?? 0);
  }
  expect(delay).toBe(250 * 2 ** 29);
});

test.each([0, 25 * DAY, Infinity])("a mock server's latency of %d is one", async (latency) => {
  const server = new MockServer({ latency, heartbeat: 0 });
  make({ WebSocket: server.WebSocket, connectTimeout: 0 });
  await settle();
  expect(client?.state).toBe(latency === 0 ? "open" : "connecting");
  await vi.advanceTimersByTimeAsync(51 * DAY);
  expect(client?.state).toBe(latency === Infinity ? "connecting" : "open");
});

describe("the clock of the wall may be set", () => {
  const setBack = () => vi.setSystemTime(Date.now() - 3_600_000);

  test("and a dead connection is noticed", async () => {
    const socket = await opened({}, 25);
    setBack();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(socket.readyState).toBe(2);
    expect(client?.state).not.toBe("open");
  });

  test("and a connection from before the network came back is given up", async () => {
    make({});
    await settle();
    const socket = FakeSocket.last;
    await vi.advanceTimersByTimeAsync(5000);
    setBack();
    window.dispatchEvent(new Event("online"));
    expect(socket.readyState).toBe(2);
  });

  test("and what waits too long is dropped", async () => {
    const isOver = await LIMITS["queue.age"]?.(60_000);
    setBack();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(isOver?.()).toBe(true);
  });

  test("and failures are forgotten after a stable time", async () => {
    const socket = await opened({});
    socket.end();
    await vi.advanceTimersByTimeAsync(250);
    FakeSocket.last.welcome();
    await settle();
    await vi.advanceTimersByTimeAsync(10_000);
    setBack();
    const delays: (number | undefined)[] = [];
    client?.on("waiting", ({ delay }) => delays.push(delay));
    FakeSocket.last.end();
    expect(delays).toEqual([250]);
  });
});

test("a timer that is started again does the latest thing once", () => {
  const timer = new Timer();
  const done: number[] = [];
  for (const number of [1, 2]) timer.start(25 * DAY, () => done.push(number));
  const began = now();
  vi.advanceTimersByTime(60 * DAY);
  expect([done, now() - began, timer.running]).toEqual([[2], 60 * DAY, false]);
});
