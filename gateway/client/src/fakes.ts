// Stand-ins for the browser, for the tests only.
import { vi } from "vitest";
import type { Outgoing } from "./message";

/** A WebSocket whose server is the test. */
export class FakeSocket {
  static all: FakeSocket[] = [];
  readyState = 0;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly frames: string[] = [];
  readonly url: string;
  readonly protocols: string[];

  constructor(url: string, protocols: string[]) {
    this.url = url;
    this.protocols = protocols;
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no socket was made");
    return socket;
  }

  /** Sockets that were not closed by either side. */
  static get alive(): FakeSocket[] {
    return FakeSocket.all.filter(({ readyState }) => readyState < 2);
  }

  get sent(): Outgoing[] {
    return this.frames.map((text) => JSON.parse(text));
  }

  send(text: string): void {
    if (this.readyState !== 1) throw new Error("sent to a socket that is not open");
    this.frames.push(text);
  }

  close(): void {
    if (this.readyState < 2) this.readyState = 2;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.(new Event("open"));
  }

  receive(message: object | string): void {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  end(code = 1006, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** Open it and greet, as a node does. */
  welcome(param: object = {}): void {
    this.open();
    this.receive({
      channel: "",
      cmd: "$welcome",
      param: { connection: "c1", node: "n1", user: "u1", channels: [], heartbeat: 25, ...param },
    });
  }

  /** Answer the latest request with that command. */
  reply(cmd: string, param: unknown = {}, answer: "$reply" | "$error" = "$reply"): void {
    const request = this.sent.reverse().find((message) => message.cmd === cmd);
    if (!request) throw new Error(`no ${cmd} was sent`);
    this.receive({ channel: request.channel ?? "", cmd: answer, id: request.id, param });
  }
}

/** A page that is online and visible until told otherwise. */
export class FakePage {
  readonly window = new EventTarget();
  readonly document = Object.assign(new EventTarget(), {
    visibilityState: "visible",
    baseURI: "https://example.test/app/page",
  });
  readonly navigator = { onLine: true };

  online(is: boolean): void {
    this.navigator.onLine = is;
    this.window.dispatchEvent(new Event(is ? "online" : "offline"));
  }

  visible(is: boolean): void {
    this.document.visibilityState = is ? "visible" : "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  freeze(): void {
    this.document.dispatchEvent(new Event("freeze"));
  }

  resume(): void {
    this.document.dispatchEvent(new Event("resume"));
  }

  hide(): void {
    this.window.dispatchEvent(new Event("pagehide"));
  }

  show(persisted: boolean): void {
    this.window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));
  }
}

/** Replace the browser: timers, sockets and page. */
export function fakeBrowser(): FakePage {
  const page = new FakePage();
  FakeSocket.all = [];
  vi.useFakeTimers({ now: 1_800_000_000_000 });
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("window", page.window);
  vi.stubGlobal("document", page.document);
  vi.stubGlobal("navigator", page.navigator);
  return page;
}

/** Let promises settle. */
export const settle = async (): Promise<void> => {
  await vi.advanceTimersByTimeAsync(0);
};

/** A repeatable source of random numbers in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
