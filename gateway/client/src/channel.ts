import { Emitter, isolated } from "./emitter";
import { GatewayError, pauseAfter } from "./errors";
import type { Message } from "./message";
import { type Gap, type Joined, type Position, Progress } from "./progress";
import type { Dropped } from "./queue";
import { type Messages, reader } from "./reader";
import { type Presence, Roster } from "./roster";
import type { AnySchema, Arguments, ChannelMessages, Command, Param, Reply, Schema } from "./schema";
import { Timer } from "./timer";

/** Why the server took us out of a channel: `forbidden` by a renewed token, or `removed`. */
export interface Left {
  reason: string;
}

/** What `$history` answers, oldest first. */
export interface History {
  messages: Message[];
  epoch: string | null;
  offset: number;
}

export interface RequestOptions {
  /** The subject; default the connection's first channel. */
  channel?: string;
  /** Milliseconds, waiting for a connection included; 0 or `Infinity` for no limit. */
  timeout?: number;
  signal?: AbortSignal;
}

/** What a channel needs of its client. */
export interface Port {
  /** Whether a node has welcomed us and still holds us, so that `urgent` has a way; null when none will. */
  readonly welcomed: boolean | null;
  send(cmd: string, param: unknown, options: { channel: string }): boolean;
  request(cmd: string, param: unknown, options: RequestOptions): Promise<unknown>;
  /** As `request`, past the queue: only the handshake may speak before the connection is open. */
  urgent(cmd: string, param: unknown, options: RequestOptions): Promise<unknown>;
  delivered(message: Message): void;
  gap(gap: Gap & { channel: string }): void;
  left(left: Left & { channel: string }): void;
  dropped(dropped: Dropped): void;
  failed(error: GatewayError): void;
}

type Listener<P> = (param: P, message: Message<P>) => void;

/** How many messages wait for one who reads them by `messages()`. */
const BUFFER = 1000;

/** Longer than a node waits for its Redis; a lost connection ends the wait anyway. */
const JOIN_TIMEOUT = 30_000;

/** Events of our own: the node has let us in; it has refused, or will not be asked; nothing more will come. */
const INSIDE = "$in";
const REFUSED = "$out";
const END = "$end";

/**
 * One channel. `on` hears whatever the server sends on it; `join` also keeps it joined: across
 * reconnects, without losing or repeating messages where the channel keeps a history, and with a
 * `$gap` where messages may have been missed.
 */
export class Channel<S extends Schema = AnySchema> {
  readonly name: string;
  readonly #port: Port;
  readonly #events = new Emitter<Record<string, (...args: never[]) => void>>();
  readonly #progress = new Progress();
  /** Whether the node has let us in, on the connection at hand. */
  #inside = false;
  /** Settled when the node first lets us in; null while we do not want in. */
  #joined: PromiseWithSettle | null = null;
  /** Numbers the joins, so that the answer to an abandoned one is not taken for the latest's. */
  #attempt = 0;
  readonly #retry = new Timer();

  /** @internal */
  constructor(name: string, port: Port) {
    this.name = name;
    this.#port = port;
  }

  /** Whether the channel is to be joined, now and after every reconnect. */
  get wanted(): boolean {
    return this.#joined !== null;
  }

  /** How far the messages of a channel with history were delivered. */
  get position(): Position | null {
    return this.#progress.position;
  }

  /**
   * Join, and stay joined. Resolves when the node has confirmed it, rejects when it refuses, and with `closed` at the
   * end of the client; who connects it again is in the channel again.
   */
  join(): Promise<void> {
    if (!this.#joined) {
      this.#joined = promiseWithSettle();
      if (this.#port.welcomed) void this.enter();
    }
    if (this.#port.welcomed === null) this.fail();
    return this.#joined.promise;
  }

  /**
   * Leave, and stay away, whoever had us join. Resolves when that is so, which the end of the connection brings as
   * well.
   */
  async leave(): Promise<void> {
    this.#forget()?.reject(this.#error("aborted", "the channel was left"));
    if (!this.#port.welcomed) return;
    await this.#port.urgent("$leave", null, { channel: this.name }).catch((error) => {
      if (error.code !== "closed") throw error;
    });
  }

  /** Send a command about this channel. False when it waits for a connection. */
  send<C extends Command<S>>(cmd: C, ...[param]: Arguments<Param<S, C>>): boolean {
    return this.#port.send(cmd, param, { channel: this.name });
  }

  /** Send a command about this channel, and wait for the handler's answer. */
  request<C extends Command<S>>(
    cmd: C,
    ...[param, options]: Arguments<Param<S, C>, [options?: Omit<RequestOptions, "channel">]>
  ): Promise<Reply<S, C>> {
    return this.#port.request(cmd, param, { ...options, channel: this.name }) as Promise<Reply<S, C>>;
  }

  /**
   * Hear a command on this channel: `$gap` when messages may have been missed, `$left` when the server has taken us
   * out, `*` for all but those. Returns what takes the listener off again.
   */
  on(cmd: "$gap", listener: Listener<Gap>): () => void;
  on(cmd: "$left", listener: Listener<Left>): () => void;
  on(cmd: "*", listener: Listener<unknown>): () => void;
  on<C extends keyof ChannelMessages>(cmd: C, listener: Listener<ChannelMessages[C]>): () => void;
  on<C extends keyof S["messages"] & string>(cmd: C, listener: Listener<S["messages"][C]>): () => void;
  on(cmd: string, listener: Listener<never>): () => void {
    return this.#events.on(cmd, listener);
  }

  /**
   * The same as an iterator, which hears from the call on, and ends with `break`, `return()`, `leave()`, `$left` and
   * the end of the client. Up to `limit` messages wait for a slow reader; the oldest give way, and are told as `dropped`.
   */
  messages(cmd?: "*", options?: { limit?: number }): Messages<Message>;
  messages(cmd: "$gap", options?: { limit?: number }): Messages<Message<Gap>>;
  messages<C extends keyof ChannelMessages>(
    cmd: C,
    options?: { limit?: number },
  ): Messages<Message<ChannelMessages[C]>>;
  messages<C extends keyof S["messages"] & string>(
    cmd: C,
    options?: { limit?: number },
  ): Messages<Message<S["messages"][C]>>;
  messages(cmd = "*", { limit = BUFFER } = {}): Messages<Message> {
    return reader(
      limit,
      (push, end) => [
        this.#events.on(cmd, (_: never, message: Message) => push(message)),
        this.#events.on(END, end),
      ],
      (message: Message) => this.#port.dropped({ message, reason: "slow" }),
    );
  }

  /** Who is here; members only. */
  presence(options?: Omit<RequestOptions, "channel">): Promise<Presence> {
    return this.#port.request("$presence", null, { ...options, channel: this.name }) as Promise<Presence>;
  }

  /**
   * Hear who is here: now, after every change, and after every reconnect, which is none. What was known is kept
   * meanwhile. Returns what takes the listener off again.
   */
  watchPresence(listener: (presence: Presence) => void): () => void {
    const roster = new Roster(this, (presence) => isolated(listener, presence));
    if (this.#inside) void roster.ask();
    const off = this.#events.on(INSIDE, () => void roster.ask());
    return () => {
      off();
      roster.end();
    };
  }

  /** Past messages, oldest first: the newest `limit` ones, or the first ones after `since`. Members only. */
  history(
    range: { since?: Position; limit?: number } = {},
    options?: Omit<RequestOptions, "channel">,
  ): Promise<History> {
    return this.#port.request("$history", range, { ...options, channel: this.name }) as Promise<History>;
  }

  /** @internal Messages that were not delivered because they had been before. */
  get duplicates(): number {
    return this.#progress.duplicates;
  }

  /** @internal Nothing more will come. */
  end(): void {
    this.#events.emit(END);
  }

  /** @internal There is no connection over which to join. */
  fail(): void {
    this.#reject(this.#joined, this.#error("closed", "no connection"));
  }

  /** @internal Take part again over a new connection; resolves when that is settled, one way or the other. */
  async enter(): Promise<void> {
    const attempt = ++this.#attempt;
    this.#retry.stop();
    this.#inside = false;
    if (this.#joined?.failed) this.#joined = promiseWithSettle();
    this.#deliver(this.#progress.begin());
    const { position: since } = this;
    try {
      const options = { channel: this.name, timeout: JOIN_TIMEOUT };
      const reply = await this.#port.urgent("$join", since && { since }, options);
      if (attempt === this.#attempt) this.#entered(reply as Joined | null);
    } catch (error) {
      if (attempt === this.#attempt) this.#refused(error as GatewayError);
    }
  }

  /** @internal */
  receive(message: Message): void {
    if (message.cmd === "$gap") this.#gap(this.#progress.interrupt(message.param as Partial<Gap> | null));
    else if (message.cmd === "$left") this.#left(message.param as Partial<Left> | null);
    else this.#deliver(this.#progress.accept(message));
  }

  #entered(reply: Joined | null): void {
    const { gap, messages } = this.#progress.settle(reply);
    if (gap) this.#gap(gap);
    this.#deliver(messages);
    this.#inside = true;
    this.#events.emit(INSIDE);
    this.#joined?.resolve();
  }

  #refused(error: GatewayError): void {
    // A new connection joins again by itself.
    if (error.code === "closed") return this.#deliver(this.#progress.abandon());
    const failure = this.#error(error.code, error.message);
    const pause = pauseAfter(error);
    // Over the same connection; what arrives is held back until then.
    if (pause) this.#retry.start(pause, () => this.#port.welcomed && this.enter());
    else this.#reject(this.#forget(), failure);
    this.#port.failed(failure);
  }

  #error(code: string, message: string): GatewayError {
    return new GatewayError(code, message, { channel: this.name });
  }

  #reject(joined: PromiseWithSettle | null, failure: GatewayError): void {
    joined?.reject(failure);
    this.#events.emit(REFUSED, failure as never);
  }

  #forget(): PromiseWithSettle | null {
    const joined = this.#joined;
    this.#joined = null;
    this.#attempt++;
    this.#retry.stop();
    this.#inside = false;
    this.#deliver(this.#progress.leave());
    this.end();
    return joined;
  }

  #gap(gap: Gap): void {
    this.#tell("$gap", gap);
    this.#port.gap({ ...gap, channel: this.name });
  }

  /** The server has taken us out, and would again: who wants in asks anew. */
  #left(param: Partial<Left> | null): void {
    // A join that is under way was asked for since; its answer tells whether we are in.
    if (this.#joined && !this.#inside) return;
    const reason = param?.reason ?? "removed";
    this.#reject(this.#forget(), this.#error(reason, "the server has taken us out of the channel"));
    this.#tell("$left", { reason });
    this.#port.left({ reason, channel: this.name });
  }

  #tell(cmd: string, param: object): void {
    this.#events.emit(cmd, param as never, { channel: this.name, cmd, param } as never);
  }

  #deliver(messages: Message[]): void {
    for (const message of messages) {
      this.#events.emit(message.cmd, message.param as never, message as never);
      this.#events.emit("*", message.param as never, message as never);
      this.#port.delivered(message);
    }
  }
}

interface PromiseWithSettle {
  promise: Promise<void>;
  failed?: boolean;
  resolve(): void;
  reject(error: GatewayError): void;
}

function promiseWithSettle(): PromiseWithSettle {
  const settle = {} as PromiseWithSettle;
  settle.promise = new Promise((resolve, reject) => Object.assign(settle, { resolve, reject }));
  // Who does not wait for a join hears of its failure as an `error` of the client.
  settle.promise.catch(() => {
    settle.failed = true;
  });
  return settle;
}
