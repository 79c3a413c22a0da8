import { PROTOCOL } from "./address";
import { GatewayError } from "./errors";
import type { Message, Outgoing } from "./message";
import { Connection } from "./mock-connection";
import { MockSocket, type Peer } from "./mock-socket";
import type { Position } from "./progress";
import { time } from "./timer";

/** One command of a client, for a handler of a mock server. */
export interface Command {
  cmd: string;
  param: unknown;
  /** The channel it names, else the connection's first one, else "". */
  channel: string;
  connection: MockConnection;
}

// biome-ignore lint/suspicious/noExplicitAny: a test knows what its client sends
export type MockHandler = (param: any, command: Command) => unknown;

export interface MockServerOptions {
  /** Milliseconds that everything takes, in either direction; default 0, which needs no timers. */
  latency?: number;
  /** How many messages a channel keeps; default none. */
  history?: number | ((channel: string) => number);
  /** Who connects; default the `user` of the address, else the connection's id. */
  user?: (connection: MockConnection) => string | null;
  /** Whether a connection may join a channel; default always. */
  authorize?: (connection: MockConnection, channel: string) => boolean;
  /** Seconds, as told in `$welcome`; default 25. Nobody pings. */
  heartbeat?: number;
  /** Above so many users a channel only counts them; default 1000. */
  presenceMax?: number;
}

/** One client that a mock server has let in. */
export interface MockConnection {
  readonly id: string;
  readonly user: string;
  readonly url: URL;
  /** The token it showed, or renewed with `$auth`. */
  token: string | null;
  /** Whether it speaks `gateway.v1.json`: replies, offsets, `$` commands. */
  readonly modern: boolean;
  readonly channels: ReadonlySet<string>;
  /** Every message it sent, the gateway's own commands included. */
  readonly received: Outgoing[];
  /** Write to it alone. */
  send(cmd: string, param?: unknown, channel?: string): void;
  /** Close it with a code, as a gateway does: `connection.close(1012, "retry_after=2")`. */
  close(code: number, reason?: string): void;
  /** Lose it without a close frame. */
  drop(): void;
}

interface Channel {
  members: Set<Connection>;
  epoch: string;
  offset: number;
  messages: Message[];
}

/**
 * A gateway for the tests of an application: it plays one node over WebSockets that never leave the page.
 *
 *     const server = new MockServer({ history: 100 });
 *     const client = new Client("ws://test/connect", { WebSocket: server.WebSocket });
 *     server.on("chat", ({ text }, { channel }) => server.publish(channel, "chat", { text }));
 *
 * It answers `$join`, `$leave`, `$presence`, `$history`, `$auth` and probes as a node does; a handler of your own
 * for one of them takes its place. Everything arrives a microtask later, or `latency` milliseconds by the timers of
 * the page, which may be fake ones.
 */
export class MockServer {
  /** Give this to `Client` as its option `WebSocket`, or use `install()`. */
  readonly WebSocket: typeof WebSocket;
  /** Those who are connected now, the oldest first. */
  readonly connections: MockConnection[] = [];
  latency: number;
  /** Whether new connections are let in; otherwise they fail as on a server that is not there (1006). */
  accepting = true;
  /** Whether it neither answers nor sends: the network is dead, and nobody has said so. */
  silent = false;
  readonly #options: MockServerOptions;
  readonly #handlers = new Map<string, MockHandler>();
  readonly #channels = new Map<string, Channel>();
  #ids = 0;
  #epochs = 0;
  #restore: (() => void) | null = null;

  constructor(options: MockServerOptions = {}) {
    this.#options = options;
    this.latency = time("latency", options.latency, 0);
    const server = this;
    const peer: Peer = {
      get latency() {
        return server.latency;
      },
      dialled: (socket) => this.#dialled(socket),
      arrived: (socket, text) => this.#arrived(socket, text),
    };
    this.WebSocket = class extends MockSocket {
      constructor(url: string, protocols?: string | string[]) {
        super(peer, url, protocols);
      }
    } as unknown as typeof WebSocket;
    for (const [cmd, handler] of Object.entries(this.#own())) this.#handlers.set(cmd, handler);
  }

  /** Take the place of the global `WebSocket` until `uninstall()`. */
  install(): this {
    const before = globalThis.WebSocket;
    globalThis.WebSocket = this.WebSocket;
    this.#restore ??= () => {
      globalThis.WebSocket = before;
    };
    return this;
  }

  uninstall(): void {
    this.#restore?.();
    this.#restore = null;
  }

  /**
   * Handle a command. What the handler returns, or the promise of it, answers a request; a `GatewayError` that it
   * throws is sent as `$error`.
   */
  on(cmd: string, handler: MockHandler): this {
    this.#handlers.set(cmd, handler);
    return this;
  }

  /** Write to all members of a channel, and to its history if it keeps one. */
  publish(channel: string, cmd: string, param: unknown = null, from?: string): void {
    const place = this.#channel(channel);
    const message: Message = { channel, cmd, param, ...(from === undefined ? {} : { from }) };
    const most = this.#kept(channel);
    if (most) {
      message.offset = ++place.offset;
      place.messages = [...place.messages, message].slice(-most);
    }
    this.#write(place, message);
  }

  /** Write to every connection of a user. */
  writeUser(user: string, cmd: string, param: unknown = null): void {
    for (const connection of this.connections) if (connection.user === user) connection.send(cmd, param);
  }

  /** Write to everyone. */
  writeAll(cmd: string, param: unknown = null): void {
    for (const connection of this.connections) connection.send(cmd, param);
  }

  /** Put a connection in a channel, as an application does from the server's side. */
  join(connection: MockConnection, channel: string): void {
    this.#join(connection as Connection, channel);
  }

  /** Take a connection out of a channel; with a reason it is told so: `forbidden` as by a renewed token, `removed`. */
  leave(connection: MockConnection, channel: string, reason?: string): void {
    if (!connection.channels.has(channel)) return;
    this.#leave(connection as Connection, channel);
    if (reason !== undefined && connection.modern) connection.send("$left", { reason }, channel);
  }

  /** The ids of the users in a channel. */
  online(channel: string): string[] {
    return [...new Set([...this.#channel(channel).members].map(({ user }) => user))];
  }

  /** What a channel keeps, oldest first. */
  history(channel: string): Message[] {
    return [...this.#channel(channel).messages];
  }

  /** Lose a channel's history, as a Redis without its data does: members get a `$gap` with the new epoch. */
  forget(channel: string): void {
    const place = this.#channel(channel);
    const since = { epoch: place.epoch, offset: place.offset };
    Object.assign(place, { epoch: this.#epoch(), offset: 0, messages: [] });
    this.#write(place, { channel, cmd: "$gap", param: { epoch: place.epoch, since } });
  }

  /** Say that messages may have been missed in a channel. */
  gap(channel: string): void {
    this.#write(this.#channel(channel), { channel, cmd: "$gap", param: {} });
  }

  /** Close all connections with a code, as a gateway does: `server.close(1012, "retry_after=2")`. */
  close(code: number, reason = ""): void {
    for (const connection of [...this.connections]) {
      this.#lose(connection as Connection);
      connection.close(code, reason);
    }
  }

  /** Lose all connections without a close frame. */
  drop(): void {
    this.close(1006);
  }

  // ---- sockets

  #dialled(socket: MockSocket): void {
    if (this.silent) return;
    if (!this.accepting) return socket.finish(1006);
    const connection = new Connection(`c${++this.#ids}`, socket);
    connection.user =
      this.#options.user?.(connection) ?? (connection.url.searchParams.get("user") || connection.id);
    this.connections.push(connection);
    socket.addEventListener("close", () => this.#lose(connection));
    socket.accept(connection.modern ? PROTOCOL : "");
    for (const channel of connection.url.searchParams.getAll("ch")) {
      if (channel) this.#join(connection, channel);
    }
    if (!connection.modern) return;
    const { id, user, channels } = connection;
    const heartbeat = this.#options.heartbeat ?? 25;
    connection.send("$welcome", { connection: id, node: "mock", user, channels: [...channels], heartbeat });
  }

  #arrived(socket: MockSocket, text: string): void {
    const connection = (this.connections as Connection[]).find((one) => one.socket === socket);
    if (!connection || this.silent) return;
    const message: Outgoing = JSON.parse(text);
    connection.received.push(message);
    void this.#handle(connection, message);
  }

  #lose(connection: Connection): void {
    const index = this.connections.indexOf(connection);
    if (index < 0) return;
    this.connections.splice(index, 1);
    for (const channel of connection.channels) this.#leave(connection, channel);
  }

  // ---- commands

  async #handle(connection: Connection, message: Outgoing): Promise<void> {
    const { cmd, id, param = null } = message;
    const channel = message.channel ?? [...connection.channels][0] ?? "";
    const reply = (cmd: string, param: unknown): void =>
      connection.write({ channel, cmd, param, ...(id === undefined ? {} : { id }) });
    try {
      const handler = this.#handlers.get(cmd);
      if (!handler || (cmd.startsWith("$") && !connection.modern)) {
        throw new GatewayError("unknown-command", `unknown command '${cmd}'`);
      }
      const answer = await handler(param, { cmd, param, channel, connection });
      if (id !== undefined && connection.modern) reply("$reply", answer ?? null);
    } catch (error) {
      // By its code, not by its class: the application's GatewayError is another module's.
      const isOurs = typeof (error as GatewayError).code === "string";
      const failure = isOurs ? (error as GatewayError) : new GatewayError("internal", String(error));
      const { code, message, field, retryAfter } = failure;
      const retry_after = retryAfter === undefined ? undefined : retryAfter / 1000;
      reply("$error", { code, message, field, retry_after });
    }
  }

  /** The commands that belong to the gateway. */
  #own(): Record<string, MockHandler> {
    const member = (run: (channel: string, param: never) => unknown): MockHandler => {
      return (param, { channel, connection }) => {
        if (connection.channels.has(channel)) return run(channel, param as never);
        throw new GatewayError("forbidden", `only members of ${channel} may ask`);
      };
    };
    return {
      $ping: () => ({}),
      $auth: ({ token }, { connection }) => {
        connection.token = token;
        return {};
      },
      $join: (param, { channel, connection }) =>
        this.#resume(connection as Connection, channel, param?.since),
      $leave: (_, { channel, connection }) => {
        this.#leave(connection as Connection, channel);
        return {};
      },
      $presence: member((channel) => this.#presence(channel)),
      $history: member((channel, range) => this.#page(channel, range)),
    };
  }

  #resume(connection: Connection, channel: string, since?: Position): object {
    if (this.#options.authorize?.(connection, channel) === false) {
      throw new GatewayError("forbidden", `not allowed to join ${channel}`);
    }
    const place = this.#channel(channel);
    this.#join(connection, channel);
    if (!this.#kept(channel)) return { epoch: null, offset: null, recovered: false };
    const missed = place.messages.filter(({ offset = 0 }) => since && offset > since.offset);
    const recovered = since?.epoch === place.epoch && place.offset - since.offset === missed.length;
    if (recovered) for (const message of missed) connection.write(message);
    return { epoch: place.epoch, offset: place.offset, recovered };
  }

  #presence(channel: string): object {
    const users = this.online(channel);
    const crowded = users.length > (this.#options.presenceMax ?? 1000);
    return crowded ? { count: users.length } : { count: users.length, users };
  }

  #page(channel: string, range: { since?: Position; limit?: number } | null): object {
    if (!this.#kept(channel)) throw new GatewayError("forbidden", `${channel} keeps no history`);
    const { epoch, offset, messages } = this.#channel(channel);
    const { since, limit = messages.length } = range ?? {};
    const after = messages.filter((message) => (message.offset ?? 0) > (since?.offset ?? 0));
    return {
      messages: since ? after.slice(0, limit) : after.slice(Math.max(0, after.length - limit)),
      epoch,
      offset,
    };
  }

  // ---- channels

  #join(connection: Connection, channel: string): void {
    const place = this.#channel(channel);
    if (place.members.has(connection)) return;
    const known = this.online(channel).includes(connection.user);
    if (!known) this.#announce(place, channel, connection.user, true);
    place.members.add(connection);
    connection.channels.add(channel);
  }

  #leave(connection: Connection, channel: string): void {
    const place = this.#channel(channel);
    if (!place.members.delete(connection)) return;
    connection.channels.delete(channel);
    if (!this.online(channel).includes(connection.user)) {
      this.#announce(place, channel, connection.user, false);
    }
  }

  #announce(place: Channel, channel: string, userID: string, connected: boolean): void {
    const count = this.online(channel).length + (connected ? 1 : 0);
    const crowded = count > (this.#options.presenceMax ?? 1000);
    const [cmd, param] = crowded ? ["online-count", { count }] : ["online-update", { userID, connected }];
    this.#write(place, { channel, cmd: cmd as string, param });
  }

  #write(place: Channel, message: Message): void {
    if (this.silent) return;
    for (const connection of place.members) {
      if (connection.modern || !message.cmd.startsWith("$")) connection.write(message);
    }
  }

  #channel(name: string): Channel {
    const place = this.#channels.get(name) ?? {
      members: new Set(),
      epoch: this.#epoch(),
      offset: 0,
      messages: [],
    };
    this.#channels.set(name, place);
    return place;
  }

  #epoch(): string {
    return `e${++this.#epochs}`;
  }

  #kept(channel: string): number {
    const { history = 0 } = this.#options;
    return typeof history === "function" ? history(channel) : history;
  }
}
