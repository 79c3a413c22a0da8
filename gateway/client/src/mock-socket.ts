import { Timer } from "./timer";

/** What a mock server hears of a socket. */
export interface Peer {
  /** Milliseconds that everything takes, in either direction. */
  readonly latency: number;
  /** A page dials. */
  dialled(socket: MockSocket): void;
  /** A frame of the page has arrived. */
  arrived(socket: MockSocket, text: string): void;
}

/** A WebSocket whose other end is a mock server in the same page. */
export class MockSocket {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;
  readonly url: string;
  readonly protocols: string[];
  protocol = "";
  binaryType = "blob";
  readyState = MockSocket.CONNECTING;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  readonly #peer: Peer;
  /** What is on its way, in either direction: whatever arrives next is the first of these. */
  readonly #underway: (() => void)[] = [];
  readonly #listeners = new Map<string, Set<(event: Event) => void>>();

  constructor(peer: Peer, url: string, protocols: string | string[] = []) {
    this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.protocols = [protocols].flat();
    this.#peer = peer;
    this.#later(() => this.readyState === MockSocket.CONNECTING && peer.dialled(this));
  }

  send(text: string): void {
    if (this.readyState === MockSocket.CONNECTING) throw new Error("sent before the socket was open");
    if (this.readyState === MockSocket.OPEN) this.#later(() => this.#peer.arrived(this, text));
  }

  close(code = 1005, reason = ""): void {
    if (this.readyState >= MockSocket.CLOSING) return;
    const wasOpen = this.readyState === MockSocket.OPEN;
    this.readyState = MockSocket.CLOSING;
    this.#later(() => this.#end(wasOpen ? code : 1006, reason));
  }

  addEventListener(type: string, listener: (event: Event) => void): void {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
  }

  removeEventListener(type: string, listener: (event: Event) => void): void {
    this.#listeners.get(type)?.delete(listener);
  }

  /** The server lets the page in. */
  accept(protocol: string): void {
    if (this.readyState !== MockSocket.CONNECTING) return;
    this.protocol = protocol;
    this.readyState = MockSocket.OPEN;
    this.#tell("open", {});
  }

  /** The server sends. */
  deliver(text: string): void {
    this.#later(() => this.readyState === MockSocket.OPEN && this.#tell("message", { data: text }));
  }

  /** The server closes, or the network does (1006). */
  finish(code: number, reason = ""): void {
    this.#later(() => this.#end(code, reason));
  }

  #end(code: number, reason: string): void {
    if (this.readyState === MockSocket.CLOSED) return;
    this.readyState = MockSocket.CLOSED;
    if (code === 1006) this.#tell("error", {});
    this.#tell("close", { code, reason, wasClean: code !== 1006 });
  }

  #tell(type: "open" | "message" | "close" | "error", details: object): void {
    const event = Object.assign(new Event(type), details);
    this[`on${type}`]?.(event as never);
    for (const listener of this.#listeners.get(type) ?? []) listener(event);
  }

  /** A microtask later where there is no latency, so that such a test needs no clock. */
  #later(act: () => void): void {
    this.#underway.push(act);
    const next = (): void => this.#underway.shift()?.();
    if (this.#peer.latency > 0) new Timer().start(this.#peer.latency, next);
    else queueMicrotask(next);
  }
}
