import { type Address, addressOf, type Unusable, usable } from "./address";
import { Channel, type Left, type Port, type RequestOptions } from "./channel";
import { Connection, type ConnectionOptions } from "./connection";
import { Emitter } from "./emitter";
import { encode } from "./encode";
import { errorOf, GatewayError } from "./errors";
import type { Message, Outgoing } from "./message";
import type { Gap } from "./progress";
import { type Dropped, Queue, type QueueLimits } from "./queue";
import { Requests } from "./requests";
import type { AnySchema, Arguments, Command, Param, Reply, Schema } from "./schema";
import { isOver, type State, type StateChange } from "./states";
import { limit, Timer } from "./timer";
import { renewalDelay } from "./token";

/** A value, or where to get a fresh one for every attempt. */
export type Source<T> = T | (() => T | Promise<T>);

export interface ClientOptions extends ConnectionOptions {
  /** Connect without being asked; default true. */
  autoConnect?: boolean;
  /** The JWT to show. A function is asked before every attempt, and before the token expires. */
  token?: Source<string | null>;
  /** What may wait for a connection. */
  queue?: QueueLimits;
  /** How long a request waits for its answer, in milliseconds; default 10000, 0 or `Infinity` for no limit. */
  timeout?: number;
}

/** How the server introduced itself, and us. */
export interface Welcome {
  connection: string;
  node: string;
  user: string;
  channels: string[];
  /** Seconds. */
  heartbeat: number;
}

export interface Stats {
  state: State;
  /** How often a connection was established. */
  connects: number;
  sent: number;
  received: number;
  /** Messages that wait for a connection. */
  queued: number;
  /** Messages that were given up, unsent or (by an iterator) unread. */
  dropped: number;
  /** Messages that came again and were not delivered again. */
  duplicates: number;
  gaps: number;
  /** Requests without an answer yet. */
  pending: number;
}

export type ClientEvents = { [state in State]: (change: StateChange) => void } & {
  /** Every change of the state; each state is an event of its own as well. */
  state(change: StateChange): void;
  /** Every message of the application, once, whatever its channel. */
  message(message: Message): void;
  /** Errors that no promise carries. */
  error(error: GatewayError): void;
  /** A message that was given up: never sent, or (`slow`) never read by an iterator. */
  dropped(dropped: Dropped): void;
  gap(gap: Gap & { channel: string }): void;
  /** The server has taken us out of a channel. */
  left(left: Left & { channel: string }): void;
};

/** How long one slow channel may keep everything else from going on. */
const PATIENCE = 5000;

/** How often in a row a function may answer what is no URL or token: a server that is restarted answers such pages. */
const MOST_UNUSABLE = 5;

/** A connection to a gateway that comes back by itself, with its channels, requests and queue. */
export class Client<S extends Schema = AnySchema> {
  /** What the present connection, or the last one, was welcomed with. */
  welcome: Welcome | null = null;
  readonly #url: Source<string>;
  readonly #options: ClientOptions;
  readonly #connection: Connection;
  readonly #events = new Emitter<ClientEvents>();
  readonly #channels = new Map<string, Channel<S>>();
  readonly #requests = new Requests();
  readonly #queue: Queue;
  readonly #port: Port;
  /** Of the connection that was welcomed last. */
  #generation = -1;
  #token: Source<string | null>;
  /** The token in force on the connection. */
  #shown: string | null = null;
  readonly #renewal = new Timer();
  readonly #timeout: number;
  /** What the functions have answered in a row with which nothing could be tried. */
  #unusable = 0;
  readonly #counts = { connects: 0, sent: 0, received: 0, dropped: 0, gaps: 0 };

  constructor(url: Source<string> = "/connect", options: ClientOptions = {}) {
    this.#url = url;
    this.#options = options;
    this.#token = options.token ?? null;
    this.#timeout = limit("timeout", options.timeout, 10_000);
    this.#queue = new Queue(options.queue ?? {}, (dropped) => this.#dropped(dropped));
    this.#port = this.#makePort();
    this.#connection = this.#makeConnection();
    // A tick later, so that listeners added after the constructor hear of the first attempt.
    if (options.autoConnect ?? true)
      void Promise.resolve().then(() => this.state === "idle" && this.connect());
  }

  get state(): State {
    return this.#connection.state;
  }

  /** Connect, or try now instead of later. */
  connect(): void {
    this.#connection.connect();
  }

  /** Replace the connection by a new one, for instance because the URL changed. */
  reconnect(): void {
    this.#connection.reconnect();
  }

  /** Disconnect and stay so. Messages that still wait are dropped, requests reject with `closed`. */
  close(): void {
    this.#connection.close();
  }

  /** Returns what takes the listener off again. */
  on<N extends keyof ClientEvents>(event: N, listener: ClientEvents[N]): () => void {
    return this.#events.on(event, listener);
  }

  /** The channel of that name, always the same object; `""` hears what is written to no channel. */
  channel(name: string): Channel<S> {
    const channel = this.#channels.get(name) ?? new Channel<S>(name, this.#port);
    this.#channels.set(name, channel);
    return channel;
  }

  /** Send a command. False when it waits for a connection. */
  send<C extends Command<S>>(
    cmd: C,
    ...[param, options]: Arguments<Param<S, C>, [options?: { channel?: string }]>
  ): boolean {
    return this.#dispatch({ channel: options?.channel, cmd, param });
  }

  /** Send a command and wait for the handler's answer; rejects with a `GatewayError`. */
  request<C extends Command<S>>(
    cmd: C,
    ...[param, options]: Arguments<Param<S, C>, [options?: RequestOptions]>
  ): Promise<Reply<S, C>> {
    return this.#request(cmd, param, options) as Promise<Reply<S, C>>;
  }

  /** Use this token from now on, in the place of a token function; on the open connection too. What failed for want of one tries again. */
  async authenticate(token: string): Promise<void> {
    this.#token = token;
    if (this.state === "open") await this.#renew(token);
    else if (this.state === "failed") this.connect();
  }

  stats(): Stats {
    let duplicates = 0;
    for (const channel of this.#channels.values()) duplicates += channel.duplicates;
    const { state } = this;
    return { state, ...this.#counts, queued: this.#queue.size, pending: this.#requests.size, duplicates };
  }

  #makeConnection(): Connection {
    return new Connection(
      {
        address: () => this.#address(),
        canRenew: () => typeof this.#url === "function" || this.#token !== this.#shown,
        opened: () => {},
        received: (message) => this.#received(message),
        malformed: () => this.#failed(new GatewayError("bad-message", "the server sent no message")),
        lost: () => this.#lost(),
        changed: (change) => this.#changed(change),
      },
      this.#options,
    );
  }

  #makePort(): Port {
    const client = this;
    return {
      get welcomed() {
        return isOver(client.state) ? null : client.#generation === client.#connection.generation;
      },
      send: (cmd, param, { channel }) => this.#dispatch({ channel, cmd, param }),
      request: (cmd, param, options) => this.#request(cmd, param, options),
      urgent: (cmd, param, options) => this.#request(cmd, param, options, (message) => this.#insist(message)),
      delivered: (message) => this.#events.emit("message", message),
      failed: (error) => this.#failed(error),
      dropped: (dropped) => this.#dropped(dropped),
      gap: (gap) => {
        this.#counts.gaps++;
        this.#events.emit("gap", gap);
      },
      left: (left) => this.#events.emit("left", left),
    };
  }

  #address(): Address | Promise<Address> {
    const url = read(this.#url);
    const token = read(this.#token);
    const use = (url: string, token: string | null): Address => this.#use(url, token);
    if (url instanceof Promise || token instanceof Promise) {
      return Promise.all([url, token]).then(([url, token]) => use(url, token));
    }
    return use(url, token);
  }

  #use(url: string, token: string | null): Address {
    try {
      const address = addressOf(url, token);
      this.#unusable = 0;
      this.#shown = token;
      return address;
    } catch (error) {
      const { code, message } = error as Unusable;
      this.#failed(error as Unusable);
      const source = code === "invalid-url" ? this.#url : this.#token;
      if (typeof source === "function" && ++this.#unusable < MOST_UNUSABLE) throw message;
      this.#unusable = 0;
      throw error;
    }
  }

  #received(message: Message): void {
    this.#counts.received++;
    switch (message.cmd) {
      case "$welcome":
        return void this.#welcomed(message.param as Welcome);
      case "$reply":
        return void this.#requests.settle(message);
      case "$error":
        return this.#requests.settle(message) ? undefined : this.#failed(errorOf(message));
      case "close-connection":
        return this.#connection.close({ code: 4410, reason: "close-connection" });
      default:
        this.channel(message.channel).receive(message);
    }
  }

  /** Take up where the last connection ended: the channels first, then what waited for them. */
  async #welcomed(welcome: Welcome): Promise<void> {
    const { generation } = this.#connection;
    this.#generation = generation;
    this.welcome = welcome;
    await this.#rejoin();
    if (generation === this.#connection.generation) {
      this.#queue.drain((message, text) => this.#transmit(message, text));
    }
    // Asked again, because a listener told of a dropped message may have closed the client.
    if (generation === this.#connection.generation) this.#ready(welcome);
  }

  async #rejoin(): Promise<void> {
    const wanted = [...this.#channels.values()].filter((channel) => channel.wanted);
    const timer = new Timer();
    const patience = new Promise<void>((resolve) => timer.start(PATIENCE, resolve));
    await Promise.race([Promise.all(wanted.map((channel) => channel.enter())), patience]);
    timer.stop();
  }

  #ready({ heartbeat }: Welcome): void {
    this.#counts.connects++;
    this.#scheduleRenewal();
    this.#connection.ready(heartbeat);
  }

  #lost(): void {
    this.#renewal.stop();
    this.#requests.lost();
  }

  #changed(change: StateChange): void {
    if (isOver(change.state)) {
      this.#queue.clear();
      this.#requests.lost();
      for (const channel of this.#channels.values()) {
        if (change.state === "closed") channel.end();
        channel.fail();
      }
    }
    this.#events.emit("state", change);
    this.#events.emit(change.state, change);
  }

  #dispatch(message: Outgoing): boolean {
    const text = encode(message);
    if (this.state === "open" && this.#transmit(message, text)) return true;
    if (isOver(this.state)) this.#dropped({ message, reason: "closed" });
    else this.#queue.push(message, text);
    return false;
  }

  #transmit(message: Outgoing, text = encode(message)): boolean {
    if (!this.#connection.transmit(text)) return false;
    this.#counts.sent++;
    this.#requests.sent(message.id);
    return true;
  }

  #insist(message: Outgoing): void {
    if (!this.#transmit(message))
      this.#requests.fail(message.id, new GatewayError("closed", "no connection"));
  }

  #request(
    cmd: string,
    param: unknown,
    { channel, timeout = this.#timeout, signal }: RequestOptions = {},
    send: (message: Outgoing) => void = (message) => this.#dispatch(message),
  ): Promise<unknown> {
    return this.#requests.open(
      { timeout, signal },
      (id) => send({ channel, cmd, param, id }),
      (id) => this.#queue.remove(id),
    );
  }

  #dropped(dropped: Dropped): void {
    const { id } = dropped.message;
    this.#counts.dropped++;
    this.#requests.fail(id, new GatewayError("closed", `never sent (${dropped.reason})`));
    this.#events.emit("dropped", dropped);
  }

  /** An error nobody listens for must not be silent. */
  #failed(error: GatewayError): void {
    if (this.#events.has("error")) this.#events.emit("error", error);
    else console.warn(error);
  }

  #scheduleRenewal(): void {
    const delay = this.#shown && typeof this.#token === "function" ? renewalDelay(this.#shown) : null;
    this.#renewal.start(delay ?? Infinity, () => void this.#renewFromSource());
  }

  async #renewFromSource(): Promise<void> {
    const { generation } = this.#connection;
    try {
      const token = await read(this.#token);
      if (generation !== this.#connection.generation) return;
      if (token && token !== this.#shown) return await this.#renew(token);
    } catch (error) {
      this.#failed(error instanceof GatewayError ? error : new GatewayError("unauthorized", String(error)));
    }
    // Later, if there is time; else the server ends the connection, and the next one asks for a token again.
    if (generation === this.#connection.generation) this.#scheduleRenewal();
  }

  async #renew(token: string): Promise<void> {
    await this.#request("$auth", { token: usable(token) });
    this.#shown = token;
    this.#scheduleRenewal();
  }
}

const read = <T>(source: Source<T>): T | Promise<T> =>
  typeof source === "function" ? (source as () => T | Promise<T>)() : source;
