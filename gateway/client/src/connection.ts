import { type Address, sameAddress, Unusable } from "./address";
import { Backoff } from "./backoff";
import { type Close, LOST, retryAfter, verdict } from "./close";
import { type Message, parse } from "./message";
import { isOnline, isVisible, watchPage } from "./page";
import type { State, StateChange } from "./states";
import { limit, now, Timer, time } from "./timer";

/** All times in milliseconds; as a limit, 0 and `Infinity` are none. */
export interface ConnectionOptions {
  /** The ceiling of the first pause, which may be 0; it doubles with every failure. Default 500. */
  firstDelay?: number;
  /** The ceiling of every pause; default 20000. */
  maxDelay?: number;
  /** How long a connection must hold before its failures are forgotten; default 10000. */
  stableAfter?: number;
  /** How long an attempt may go on in silence; default 10000. */
  connectTimeout?: number;
  /** How long a doubted connection has to show life; default 1800. */
  probeTimeout?: number;
  /** The source of jitter; default Math.random. */
  random?: () => number;
  /** For places without a global WebSocket. */
  WebSocket?: new (
    url: string,
    protocols: string[],
  ) => WebSocket;
}

/** Who uses a connection. A call here is always the last thing the connection does. */
export interface Owner {
  /**
   * Where to go now. A promise is awaited; its rejection is a failed attempt, and the last one when it is `Unusable` or
   * names what does not exist here.
   */
  address(): Address | Promise<Address>;
  /** Whether `address` may differ after the server refused the credentials in the last one. */
  canRenew(): boolean;
  /** The socket is open. The connection is `open` when the owner calls `ready`. */
  opened(): void;
  received(message: Message): void;
  /** A frame arrived that is no message. */
  malformed(): void;
  /** A socket has ended, before the state changes; never told twice about one. */
  lost(close: Close): void;
  changed(change: StateChange): void;
}

/** The id of the question whose only purpose is an answer; numbers are taken by requests. */
const PROBE = "probe";

/**
 * Keeps one WebSocket alive: dials, waits, notices death, dials again.
 *
 * Every socket has a generation. What a socket of an earlier one still has to say is not heard, so
 * no late event can touch its successor.
 */
export class Connection {
  state: State = "idle";
  #generation = 0;
  #socket: WebSocket | null = null;
  /** The one thing that happens next by itself: the retry, the end of an attempt, or a look at the silence. */
  readonly #timer = new Timer();
  readonly #probe = new Timer();
  #unwatch: (() => void) | null = null;
  #since = 0;
  #heard = 0;
  /** The server named the moment of the next attempt; no eager page may come earlier. */
  #deferred = false;
  #address: Address | null = null;
  /** The address whose credentials were refused. */
  #refused: Address | null = null;
  readonly #backoff: Backoff;
  readonly #owner: Owner;
  readonly #WebSocket: ConnectionOptions["WebSocket"];
  readonly #maxDelay: number;
  readonly #stableAfter: number;
  readonly #connectTimeout: number;
  readonly #probeTimeout: number;

  constructor(owner: Owner, options: ConnectionOptions = {}) {
    this.#owner = owner;
    this.#WebSocket = options.WebSocket;
    this.#maxDelay = limit("maxDelay", options.maxDelay, 20_000);
    this.#stableAfter = time("stableAfter", options.stableAfter, 10_000);
    this.#connectTimeout = limit("connectTimeout", options.connectTimeout, 10_000);
    this.#probeTimeout = limit("probeTimeout", options.probeTimeout, 1800);
    this.#backoff = new Backoff(time("firstDelay", options.firstDelay, 500), this.#maxDelay, options.random);
  }

  get generation(): number {
    return this.#generation;
  }

  /** Start, or try now instead of later; nothing happens where a socket is there already. */
  connect(): void {
    if (this.state !== "connecting" && this.state !== "open") this.#attempt();
  }

  /** Give up the socket, if there is one, for a new one. */
  reconnect(): void {
    this.#end({ code: 1000, reason: "reconnecting" });
    this.#attempt();
  }

  close(close: Close = { code: 1000, reason: "" }): void {
    if (this.state !== "closed") this.#stop("closed", close);
  }

  /** Send a frame; false when the socket does not take it. */
  transmit(text: string): boolean {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(text);
    return true;
  }

  /** The owner's handshake is complete. `heartbeat` (seconds) bounds the silence that is not looked into. */
  ready(heartbeat = 25): void {
    this.#since = now();
    this.#deferred = false;
    this.#refused = null;
    this.#listenForSilence(heartbeat * 2000 || Infinity);
    this.#enter("open");
  }

  #attempt(): void {
    this.#unwatch ??= watchPage({
      awake: () => this.#awake(),
      offline: () => this.#offline(),
      asleep: () => this.#asleep(),
    });
    this.#discard();
    const generation = this.#generation;
    const current = (): boolean => generation === this.#generation;
    this.#since = now();
    this.#limitAttempt();
    this.#enter("connecting");
    if (!current()) return;
    this.#ask(
      (address) => current() && this.#dial(address),
      (error) => current() && this.#unaddressed(error),
    );
  }

  /** What does not exist here, `location` on a server say, will not exist for the next attempt either. */
  #unaddressed(error: unknown): void {
    const close = { code: LOST, reason: String(error) };
    if (error instanceof Unusable || error instanceof ReferenceError) this.#stop("failed", close);
    else this.#lost(close);
  }

  /** An attempt may take its time as long as something comes of it. */
  #limitAttempt(): void {
    this.#timer.start(this.#connectTimeout, () =>
      this.#lost({ code: LOST, reason: "the attempt took too long" }),
    );
  }

  /** Get the address, at once where it is known: a promise would cost a socket that could be on its way. */
  #ask(use: (address: Address) => void, fail: (error: unknown) => void): void {
    try {
      const address = this.#owner.address();
      if (address instanceof Promise) address.then(use, fail);
      else use(address);
    } catch (error) {
      fail(error);
    }
  }

  #dial(address: Address): void {
    if (sameAddress(this.#refused, address)) {
      return this.#stop("failed", { code: 4401, reason: "no new credentials" });
    }
    this.#address = address;
    try {
      this.#listen(new (this.#WebSocket ?? WebSocket)(address.url, address.protocols));
    } catch (error) {
      // The constructor throws for what no later attempt can mend: a wrong URL or scheme.
      this.#stop("failed", { code: LOST, reason: String(error) });
    }
  }

  #listen(socket: WebSocket): void {
    const generation = this.#generation;
    const guarded =
      <E>(handle: (event: E) => void) =>
      (event: E): void => {
        if (generation === this.#generation) handle(event);
      };
    this.#socket = socket;
    socket.onopen = guarded(() => this.#owner.opened());
    socket.onmessage = guarded((event: MessageEvent) => this.#received(event.data));
    socket.onclose = guarded(({ code, reason }: CloseEvent) => this.#lost({ code, reason }));
  }

  #received(data: unknown): void {
    this.#heard = now();
    this.#probe.stop();
    if (this.state === "connecting") this.#limitAttempt();
    const message = parse(data);
    if (!message) this.#owner.malformed();
    else if (message.id !== PROBE) this.#owner.received(message);
  }

  #lost(close: Close): void {
    if (!this.#end(close)) return;
    const after = retryAfter(close);
    const decision = verdict(close);
    if (decision === "closed") return this.#finish("closed", close);
    // A fresh token is tried once: who refuses that one as well will refuse the next.
    if (decision === "failed" || (decision === "renew" && (this.#refused || !this.#owner.canRenew()))) {
      return this.#finish("failed", close);
    }
    if (decision === "renew") this.#refused = this.#address;
    this.#deferred = after !== null;
    this.#wait(after ?? this.#backoff.next(), close);
  }

  /** Let go of the socket and say so; false when the owner decided otherwise meanwhile. */
  #end(close: Close): boolean {
    if (this.state === "open" && now() - this.#since >= this.#stableAfter) {
      this.#backoff.reset();
    }
    const had = this.#socket || this.state === "connecting";
    this.#discard();
    const generation = this.#generation;
    if (had) this.#owner.lost(close);
    return generation === this.#generation;
  }

  #wait(delay: number, close?: Close): void {
    const online = isOnline();
    // An offline browser is only nearly always right: keep trying, seldom.
    this.#timer.start(online ? delay : this.#maxDelay, () => this.#attempt());
    this.#enter(online ? "waiting" : "suspended", close, online ? delay : undefined);
  }

  #stop(state: "closed" | "failed", close: Close): void {
    if (this.#end(close)) this.#finish(state, close);
  }

  #finish(state: "closed" | "failed", close: Close): void {
    this.#unwatch?.();
    this.#unwatch = null;
    this.#enter(state, close);
  }

  #discard(): void {
    this.#generation++;
    this.#timer.stop();
    this.#probe.stop();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #enter(state: State, close?: Close, delay?: number): void {
    const previous = this.state;
    if (state === previous) return;
    this.state = state;
    this.#owner.changed({ state, previous, close, delay });
  }

  #awake(): void {
    if (this.state === "open") this.#verify();
    // An attempt from before the network came back is waiting for packets that are lost.
    else if (this.state === "connecting" && now() - this.#since > this.#probeTimeout) this.reconnect();
    else if (this.state === "suspended" || (this.state === "waiting" && !this.#deferred)) this.#attempt();
  }

  #offline(): void {
    if (this.state === "open") this.#verify();
    else if (this.state === "waiting" && !this.#deferred) this.#wait(this.#maxDelay);
  }

  #asleep(): void {
    if (this.#end({ code: 1000, reason: "the page sleeps" })) this.#enter("suspended");
  }

  /** Ask for a sign of life. Any message counts, and every node answers a `$` command that has an id. */
  #verify(): void {
    if (this.#probe.running) return;
    this.transmit(JSON.stringify({ cmd: "$ping", id: PROBE }));
    this.#probe.start(this.#probeTimeout, () => {
      const close = { code: LOST, reason: "no answer to a probe" };
      if (!isOnline()) this.#lost(close);
      else if (this.#end(close)) this.#attempt();
    });
  }

  /** A half-open connection looks like a quiet one, so look closer while somebody is watching. */
  #listenForSilence(most: number): void {
    this.#heard = now();
    const check = (): void => {
      const silence = now() - this.#heard;
      if (silence >= most && isVisible()) this.#verify();
      this.#timer.start(silence >= most ? most : most - silence, check);
    };
    this.#timer.start(most, check);
  }
}
