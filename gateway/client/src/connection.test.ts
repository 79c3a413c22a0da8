import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Address } from "./address";
import type { Close } from "./close";
import { Connection, type ConnectionOptions, type Owner } from "./connection";
import { type FakePage, FakeSocket, fakeBrowser, settle } from "./fakes";
import type { Message } from "./message";
import type { StateChange } from "./states";

let page: FakePage;
let changes: StateChange[];
let lost: Close[];
let received: Message[];
let malformed: number;
let address: () => Address | Promise<Address>;
let renewable: boolean;
let connection: Connection;

const here = { url: "ws://a.test/", protocols: ["p"] };
const states = () => changes.map(({ state }) => state);

function make(options: ConnectionOptions = {}, owner: Partial<Owner> = {}): Connection {
  connection = new Connection(
    {
      address: () => address(),
      canRenew: () => renewable,
      opened: () => connection.ready(),
      received: (message) => received.push(message),
      malformed: () => malformed++,
      lost: (close) => lost.push(close),
      changed: (change) => changes.push(change),
      ...owner,
    },
    // Half of the ceiling: 250 ms, 500 ms, 1 s, ...
    { random: () => 0.5, ...options },
  );
  return connection;
}

/** A connection that is open. */
function opened(options: ConnectionOptions = {}): FakeSocket {
  make(options).connect();
  FakeSocket.last.open();
  return FakeSocket.last;
}

beforeEach(() => {
  page = fakeBrowser();
  changes = [];
  lost = [];
  received = [];
  malformed = 0;
  renewable = false;
  address = () => here;
});
afterEach(() => {
  connection.close();
  vi.useRealTimers();
});

describe("dialling", () => {
  test("goes through connecting to open", () => {
    make();
    expect(connection.state).toBe("idle");
    connection.connect();
    expect(connection.state).toBe("connecting");
    expect(FakeSocket.last).toMatchObject(here);
    FakeSocket.last.open();
    expect(states()).toEqual(["connecting", "open"]);
  });

  test("happens once, however often it is asked for", () => {
    opened();
    connection.connect();
    expect(FakeSocket.all).toHaveLength(1);
  });

  test("waits for an address that takes time", async () => {
    address = async () => here;
    make().connect();
    expect(FakeSocket.all).toHaveLength(0);
    await settle();
    expect(FakeSocket.last.url).toBe(here.url);
  });

  test("an address that fails is a failed attempt", async () => {
    address = () => Promise.reject(new Error("no token"));
    make().connect();
    await settle();
    expect(connection.state).toBe("waiting");
    expect(changes.at(-1)?.close?.reason).toContain("no token");
    address = () => {
      throw new Error("again");
    };
    await vi.advanceTimersByTimeAsync(250);
    expect(connection.state).toBe("waiting");
    address = () => here;
    await vi.advanceTimersByTimeAsync(500);
    expect(FakeSocket.all).toHaveLength(1);
  });

  test("a late address of an abandoned attempt opens nothing", async () => {
    let give = (_: Address): void => {};
    address = () => new Promise((resolve) => (give = resolve));
    make().connect();
    connection.close();
    give(here);
    await settle();
    expect(FakeSocket.all).toHaveLength(0);
  });

  test("an attempt that hangs is given up", () => {
    make({ connectTimeout: 5000 }).connect();
    vi.advanceTimersByTime(5000);
    expect(connection.state).toBe("waiting");
    expect(FakeSocket.alive).toHaveLength(0);
  });

  test("what no attempt can mend fails for good", () => {
    vi.stubGlobal(
      "WebSocket",
      class {
        constructor() {
          throw new SyntaxError("bad URL");
        }
      },
    );
    make().connect();
    expect(connection.state).toBe("failed");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("an own WebSocket class is used where there is no global one", () => {
    vi.stubGlobal("WebSocket", undefined);
    make({ WebSocket: FakeSocket as never }).connect();
    expect(FakeSocket.all).toHaveLength(1);
  });
});

describe("after a loss", () => {
  test("the next attempt comes within the jitter", () => {
    opened().end(1006);
    expect(changes.at(-1)).toEqual({
      state: "waiting",
      previous: "open",
      close: { code: 1006, reason: "" },
      delay: 250,
    });
    vi.advanceTimersByTime(249);
    expect(FakeSocket.all).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(FakeSocket.all).toHaveLength(2);
  });

  test("pauses grow while connections do not hold", () => {
    make().connect();
    const delays = [1, 2, 3, 4, 5, 6, 7, 8].map(() => {
      FakeSocket.last.open();
      FakeSocket.last.end();
      const { delay = 0 } = changes.at(-1) ?? {};
      vi.advanceTimersByTime(delay);
      return delay;
    });
    expect(delays).toEqual([250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  test("ten stable seconds forget the failures, less do not", () => {
    opened().end();
    vi.advanceTimersByTime(250);
    FakeSocket.last.open();
    vi.advanceTimersByTime(9999);
    FakeSocket.last.end();
    expect(changes.at(-1)?.delay).toBe(500);
    vi.advanceTimersByTime(500);
    FakeSocket.last.open();
    vi.advanceTimersByTime(10_000);
    FakeSocket.last.end();
    expect(changes.at(-1)?.delay).toBe(250);
  });

  test.each([1012, 1013])("%i with retry_after names the pause, and no eager page comes earlier", (code) => {
    opened().end(code, "retry_after=4.5");
    expect(changes.at(-1)?.delay).toBe(4500);
    page.visible(true);
    page.online(true);
    page.online(false);
    expect(FakeSocket.all).toHaveLength(1);
    page.navigator.onLine = true;
    vi.advanceTimersByTime(4500);
    expect(FakeSocket.all).toHaveLength(2);
  });

  test("connect() tries at once", () => {
    opened().end();
    connection.connect();
    expect(FakeSocket.all).toHaveLength(2);
    expect(vi.getTimerCount()).toBe(1);
  });
});

describe("terminal codes", () => {
  test("4403 fails", () => {
    opened().end(4403, "not allowed");
    expect(changes.at(-1)).toMatchObject({ state: "failed", close: { code: 4403, reason: "not allowed" } });
    expect(vi.getTimerCount()).toBe(0);
  });

  test("4410 closes", () => {
    opened().end(4410);
    expect(connection.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("4401 fails when there is no other token to try", () => {
    opened().end(4401);
    expect(connection.state).toBe("failed");
  });

  test("4401 tries another token", () => {
    renewable = true;
    opened().end(4401);
    expect(connection.state).toBe("waiting");
    address = () => ({ ...here, protocols: ["p", "new"] });
    vi.advanceTimersByTime(250);
    FakeSocket.last.open();
    expect(connection.state).toBe("open");
  });

  test("4401 does not try the same token again", () => {
    renewable = true;
    opened().end(4401);
    vi.advanceTimersByTime(250);
    expect(FakeSocket.all).toHaveLength(1);
    expect(states().slice(-2)).toEqual(["connecting", "failed"]);
  });

  test("connect() starts again after the end", () => {
    opened().end(4403);
    connection.connect();
    FakeSocket.last.open();
    expect(connection.state).toBe("open");
    connection.close();
    connection.connect();
    FakeSocket.last.open();
    expect(connection.state).toBe("open");
  });
});

describe("the page", () => {
  test("an online event retries at once", () => {
    opened().end();
    page.online(true);
    expect(FakeSocket.all).toHaveLength(2);
  });

  test("becoming visible retries at once, becoming hidden does nothing", () => {
    opened().end();
    page.visible(false);
    expect(connection.state).toBe("waiting");
    page.visible(true);
    expect(connection.state).toBe("connecting");
  });

  test("a loss while offline suspends, with a rare attempt in case the browser is wrong", () => {
    const socket = opened();
    page.navigator.onLine = false;
    socket.end();
    expect(changes.at(-1)).toEqual({
      state: "suspended",
      previous: "open",
      close: { code: 1006, reason: "" },
    });
    vi.advanceTimersByTime(19_999);
    expect(FakeSocket.all).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(FakeSocket.all).toHaveLength(2);
  });

  test("going offline suspends the wait, coming online ends it", () => {
    opened().end();
    page.online(false);
    expect(connection.state).toBe("suspended");
    vi.advanceTimersByTime(250);
    expect(FakeSocket.all).toHaveLength(1);
    page.online(true);
    expect(connection.state).toBe("connecting");
  });

  test.each(["freeze", "hide"] as const)("%s lets go of the socket and all timers", (signal) => {
    const socket = opened();
    page[signal]();
    expect(connection.state).toBe("suspended");
    expect(socket.readyState).toBe(2);
    expect(lost).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("resume, or a page from the back/forward cache, connects again", () => {
    opened();
    page.freeze();
    page.resume();
    expect(connection.state).toBe("connecting");
    page.hide();
    page.show(false);
    expect(connection.state).toBe("suspended");
    page.show(true);
    expect(connection.state).toBe("connecting");
  });

  test("a young attempt is left alone, an old one is begun anew", () => {
    make().connect();
    page.online(true);
    expect(FakeSocket.all).toHaveLength(1);
    vi.advanceTimersByTime(2000);
    page.online(true);
    expect(FakeSocket.all).toHaveLength(2);
    expect(FakeSocket.alive).toHaveLength(1);
    expect(states()).toEqual(["connecting"]);
  });

  test("a closed connection hears nothing of it", () => {
    opened();
    connection.close();
    page.online(true);
    page.visible(true);
    page.freeze();
    expect(connection.state).toBe("closed");
    expect(FakeSocket.all).toHaveLength(1);
  });
});

describe("a dead connection", () => {
  test("is noticed within two seconds of the page becoming visible", () => {
    const socket = opened();
    page.visible(true);
    expect(socket.sent).toEqual([{ cmd: "$ping", id: "probe" }]);
    vi.advanceTimersByTime(2000);
    expect(FakeSocket.all).toHaveLength(2);
    expect(lost).toEqual([{ code: 1006, reason: "no answer to a probe" }]);
    expect(states().slice(-2)).toEqual(["open", "connecting"]);
  });

  test("is not suspected once anything arrives", () => {
    const socket = opened();
    page.visible(true);
    socket.receive({ cmd: "chat", channel: "lobby" });
    vi.advanceTimersByTime(2000);
    expect(connection.state).toBe("open");
    page.visible(true);
    socket.receive({ cmd: "$error", id: "probe", param: { code: "unknown-command" } });
    vi.advanceTimersByTime(2000);
    expect(connection.state).toBe("open");
    expect(received.map(({ cmd }) => cmd)).toEqual(["chat"]);
  });

  test("is asked once at a time", () => {
    const socket = opened();
    page.visible(true);
    page.online(true);
    expect(socket.sent).toHaveLength(1);
  });

  test("is noticed when the network goes, and waits for it", () => {
    opened();
    page.online(false);
    vi.advanceTimersByTime(2000);
    expect(connection.state).toBe("suspended");
  });

  test("is looked for after two silent heartbeats, while somebody is watching", () => {
    make({}, { opened: () => connection.ready(10) }).connect();
    const socket = FakeSocket.last;
    socket.open();
    vi.advanceTimersByTime(15_000);
    socket.receive({ cmd: "chat" });
    vi.advanceTimersByTime(19_999);
    expect(socket.sent).toHaveLength(0);
    vi.advanceTimersByTime(1);
    expect(socket.sent).toHaveLength(1);
    vi.advanceTimersByTime(1800);
    expect(FakeSocket.all).toHaveLength(2);
  });

  test("is not looked for on a hidden page, or without heartbeats", () => {
    const socket = opened();
    page.visible(false);
    vi.advanceTimersByTime(600_000);
    expect(socket.sent).toHaveLength(0);
    connection.close();
    make({}, { opened: () => connection.ready(0) }).connect();
    FakeSocket.last.open();
    vi.advanceTimersByTime(600_000);
    expect(FakeSocket.last.sent).toHaveLength(0);
  });
});

describe("old sockets", () => {
  test("nothing late of them is heard", () => {
    const old = opened();
    connection.reconnect();
    const young = FakeSocket.last;
    young.open();
    const before = changes.length;
    old.receive({ cmd: "chat" });
    old.end(4410);
    old.open();
    expect(received).toEqual([]);
    expect(changes).toHaveLength(before);
    expect(connection.state).toBe("open");
    expect(young.readyState).toBe(1);
    expect(lost).toEqual([{ code: 1000, reason: "reconnecting" }]);
  });

  test("nothing late is heard after close()", () => {
    const socket = opened();
    connection.close();
    socket.receive({ cmd: "chat" });
    socket.end(1006);
    expect(received).toEqual([]);
    expect(connection.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("each is reported lost once", () => {
    const socket = opened();
    socket.end(4403);
    socket.end(4403);
    connection.close();
    expect(lost).toHaveLength(1);
  });
});

describe("an owner that acts while it is told", () => {
  test("closing on a loss stays closed", () => {
    make({}, { lost: () => connection.close() }).connect();
    FakeSocket.last.open();
    FakeSocket.last.end();
    expect(connection.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("closing on connecting dials nobody", () => {
    make({}, { changed: ({ state }) => state === "connecting" && connection.close() }).connect();
    expect(FakeSocket.all).toHaveLength(0);
    expect(connection.state).toBe("closed");
  });

  test("reconnecting on waiting leaves one socket and one timer", () => {
    make({}, { changed: ({ state }) => state === "waiting" && connection.connect() }).connect();
    FakeSocket.last.end();
    expect(FakeSocket.alive).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(1);
  });
});

test("transmit says whether the socket took the frame", () => {
  make().connect();
  expect(connection.transmit("{}")).toBe(false);
  FakeSocket.last.open();
  expect(connection.transmit("{}")).toBe(true);
  FakeSocket.last.readyState = 2;
  expect(connection.transmit("{}")).toBe(false);
});

test("a frame that is no message is reported and harms nothing", () => {
  opened().receive("nonsense");
  expect(malformed).toBe(1);
  expect(connection.state).toBe("open");
});

test("without a browser it works as well", () => {
  vi.stubGlobal("window", undefined);
  vi.stubGlobal("document", undefined);
  vi.stubGlobal("navigator", undefined);
  opened().end();
  expect(connection.state).toBe("waiting");
});
