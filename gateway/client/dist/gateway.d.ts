// Built from gateway/client.

/** Why the server took us out of a channel: `forbidden` by a renewed token, or `removed`. */
interface Left {
    reason: string;
}
/** What `$history` answers, oldest first. */
interface History {
    messages: Message[];
    epoch: string | null;
    offset: number;
}
interface RequestOptions {
    /** The subject; default the connection's first channel. */
    channel?: string;
    /** Milliseconds, waiting for a connection included; 0 or `Infinity` for no limit. */
    timeout?: number;
    signal?: AbortSignal;
}
type Listener<P> = (param: P, message: Message<P>) => void;
/**
 * One channel. `on` hears whatever the server sends on it; `join` also keeps it joined: across
 * reconnects, without losing or repeating messages where the channel keeps a history, and with a
 * `$gap` where messages may have been missed.
 */
declare class Channel<S extends Schema = AnySchema> {
    #private;
    readonly name: string;
    /** Whether the channel is to be joined, now and after every reconnect. */
    get wanted(): boolean;
    /** How far the messages of a channel with history were delivered. */
    get position(): Position | null;
    /**
     * Join, and stay joined. Resolves when the node has confirmed it, rejects when it refuses, and with `closed` at the
     * end of the client; who connects it again is in the channel again.
     */
    join(): Promise<void>;
    /**
     * Leave, and stay away, whoever had us join. Resolves when that is so, which the end of the connection brings as
     * well.
     */
    leave(): Promise<void>;
    /** Send a command about this channel. False when it waits for a connection. */
    send<C extends Command<S>>(cmd: C, ...[param]: Arguments<Param<S, C>>): boolean;
    /** Send a command about this channel, and wait for the handler's answer. */
    request<C extends Command<S>>(cmd: C, ...[param, options]: Arguments<Param<S, C>, [options?: Omit<RequestOptions, "channel">]>): Promise<Reply<S, C>>;
    /**
     * Hear a command on this channel: `$gap` when messages may have been missed, `$left` when the server has taken us
     * out, `*` for all but those. Returns what takes the listener off again.
     */
    on(cmd: "$gap", listener: Listener<Gap>): () => void;
    on(cmd: "$left", listener: Listener<Left>): () => void;
    on(cmd: "*", listener: Listener<unknown>): () => void;
    on<C extends keyof ChannelMessages>(cmd: C, listener: Listener<ChannelMessages[C]>): () => void;
    on<C extends keyof S["messages"] & string>(cmd: C, listener: Listener<S["messages"][C]>): () => void;
    /**
     * The same as an iterator, which hears from the call on, and ends with `break`, `return()`, `leave()`, `$left` and
     * the end of the client. Up to `limit` messages wait for a slow reader; the oldest give way, and are told as `dropped`.
     */
    messages(cmd?: "*", options?: {
        limit?: number;
    }): Messages<Message>;
    messages(cmd: "$gap", options?: {
        limit?: number;
    }): Messages<Message<Gap>>;
    messages<C extends keyof ChannelMessages>(cmd: C, options?: {
        limit?: number;
    }): Messages<Message<ChannelMessages[C]>>;
    messages<C extends keyof S["messages"] & string>(cmd: C, options?: {
        limit?: number;
    }): Messages<Message<S["messages"][C]>>;
    /** Who is here; members only. */
    presence(options?: Omit<RequestOptions, "channel">): Promise<Presence>;
    /**
     * Hear who is here: now, after every change, and after every reconnect, which is none. What was known is kept
     * meanwhile. Returns what takes the listener off again.
     */
    watchPresence(listener: (presence: Presence) => void): () => void;
    /** Past messages, oldest first: the newest `limit` ones, or the first ones after `since`. Members only. */
    history(range?: {
        since?: Position;
        limit?: number;
    }, options?: Omit<RequestOptions, "channel">): Promise<History>;
}
/** A value, or where to get a fresh one for every attempt. */
type Source<T> = T | (() => T | Promise<T>);
interface ClientOptions extends ConnectionOptions {
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
interface Welcome {
    connection: string;
    node: string;
    user: string;
    channels: string[];
    /** Seconds. */
    heartbeat: number;
}
interface Stats {
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
type ClientEvents = {
    [state in State]: (change: StateChange) => void;
} & {
    /** Every change of the state; each state is an event of its own as well. */
    state(change: StateChange): void;
    /** Every message of the application, once, whatever its channel. */
    message(message: Message): void;
    /** Errors that no promise carries. */
    error(error: GatewayError): void;
    /** A message that was given up: never sent, or (`slow`) never read by an iterator. */
    dropped(dropped: Dropped): void;
    gap(gap: Gap & {
        channel: string;
    }): void;
    /** The server has taken us out of a channel. */
    left(left: Left & {
        channel: string;
    }): void;
};
/** A connection to a gateway that comes back by itself, with its channels, requests and queue. */
declare class Client<S extends Schema = AnySchema> {
    #private;
    /** What the present connection, or the last one, was welcomed with. */
    welcome: Welcome | null;
    constructor(url?: Source<string>, options?: ClientOptions);
    get state(): State;
    /** Connect, or try now instead of later. */
    connect(): void;
    /** Replace the connection by a new one, for instance because the URL changed. */
    reconnect(): void;
    /** Disconnect and stay so. Messages that still wait are dropped, requests reject with `closed`. */
    close(): void;
    /** Returns what takes the listener off again. */
    on<N extends keyof ClientEvents>(event: N, listener: ClientEvents[N]): () => void;
    /** The channel of that name, always the same object; `""` hears what is written to no channel. */
    channel(name: string): Channel<S>;
    /** Send a command. False when it waits for a connection. */
    send<C extends Command<S>>(cmd: C, ...[param, options]: Arguments<Param<S, C>, [options?: {
        channel?: string;
    }]>): boolean;
    /** Send a command and wait for the handler's answer; rejects with a `GatewayError`. */
    request<C extends Command<S>>(cmd: C, ...[param, options]: Arguments<Param<S, C>, [options?: RequestOptions]>): Promise<Reply<S, C>>;
    /** Use this token from now on, in the place of a token function; on the open connection too. What failed for want of one tries again. */
    authenticate(token: string): Promise<void>;
    stats(): Stats;
}
/** How a WebSocket ended: its close code and the reason text. */
interface Close {
    code: number;
    reason: string;
}
/** All times in milliseconds; as a limit, 0 and `Infinity` are none. */
interface ConnectionOptions {
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
    WebSocket?: new (url: string, protocols: string[]) => WebSocket;
}
/** `code` is the server's (`forbidden`, `rate-limited`, ...), or one of `timeout`, `aborted`, `closed`. */
declare class GatewayError extends Error {
    readonly name = "GatewayError";
    readonly code: string;
    /** The part of `param` that did not validate, with `invalid-param`. */
    readonly field?: string | undefined;
    /** Milliseconds after which trying again makes sense, where the server said so. */
    readonly retryAfter?: number | undefined;
    /** The channel it is about, where there is one. */
    readonly channel?: string | undefined;
    constructor(code: string, message: string, details?: Pick<GatewayError, "field" | "retryAfter" | "channel">);
}
/** One message from the server. */
interface Message<P = unknown> {
    /** Empty where the message was not written to a channel. */
    channel: string;
    cmd: string;
    param: P;
    /** The user id of the sender, where there is one; set by the server alone. */
    from?: string;
    /** The position in the channel's history, where it keeps one. */
    offset?: number;
    /** The request that this message answers. */
    id?: string | number;
}
/** A message to the server. Without `channel` it goes to the connection's first one. */
interface Outgoing {
    channel?: string | undefined;
    cmd: string;
    param?: unknown;
    id?: string | number;
}
/** A place in a channel's history. */
interface Position {
    epoch: string;
    offset: number;
}
/** Messages that may have been missed in a channel. */
interface Gap {
    /** The last message that was delivered, where the channel keeps a history. */
    since: Position | null;
    /** The epoch in which the history goes on; null where there is none. */
    epoch: string | null;
}
interface QueueLimits {
    /** How many messages; default 100. */
    count?: number;
    /** How many bytes of JSON; default 262144. */
    bytes?: number;
    /** How many milliseconds a message may wait; default 60000, 0 for as long as it takes. */
    age?: number;
}
/** A message that was given up, and why: one of ours that was never sent, or one nobody took in time (`slow`). */
interface Dropped {
    message: Outgoing;
    reason: "count" | "bytes" | "age" | "closed" | "slow";
}
/** Messages one after the other: `for await (const message of channel.messages("chat"))`. */
type Messages<M> = AsyncIterableIterator<M, undefined>;
/** What `$presence` answers; `users` is missing where there are too many. */
interface Presence {
    count: number;
    users?: string[];
}
/**
 * What a gateway's handlers take and send, for the type parameter of a client:
 *
 *     interface Chat {
 *       commands: { chat: { param: { text: string }; reply: null } };
 *       messages: { chat: { user: string; text: string; time: number } };
 *     }
 *     const client = new Client<Chat>("/connect");
 */
interface Schema {
    /** By command, from client to server: `{ param, reply }`. */
    commands: object;
    /** By command, from server to client: the type of `param`. */
    messages: object;
}
type Untyped = any;
/** Stands in where no schema is given: every command, any param. */
interface AnySchema {
    commands: {
        [cmd: string]: {
            param?: Untyped;
            reply: Untyped;
        };
    };
    messages: {
        [cmd: string]: Untyped;
    };
}
/** Messages that every gateway sends to the members of a channel. */
interface ChannelMessages {
    "online-update": {
        userID: string;
        connected: boolean;
    };
    "online-count": {
        count: number;
    };
}
type Command<S extends Schema> = keyof S["commands"] & string;
type Param<S extends Schema, C extends Command<S>> = S["commands"][C] extends {
    param?: infer P;
} ? P : undefined;
type Reply<S extends Schema, C extends Command<S>> = S["commands"][C] extends {
    reply: infer R;
} ? R : unknown;
/** `param` and what follows it; `param` may be left out where the command takes null or nothing. */
type Arguments<P, Rest extends unknown[] = []> = undefined extends P ? [param?: P, ...rest: Rest] : null extends P ? [param?: P, ...rest: Rest] : [param: P, ...rest: Rest];
/**
 * The plain client: five arguments, `send` and `disconnect`.
 *
 * It connects at once, keeps up to 100 messages while there is no connection (the oldest give way),
 * reconnects by itself, and ends for good on `close-connection`. It speaks no subprotocol, so there
 * are no replies, positions or gaps: that is what `Client` is for.
 */
declare class Socket {
    #private;
    readonly url: string;
    readonly debug: boolean;
    constructor(debug: boolean, onOpen: () => void, onMessage: (message: Message) => void, onError: (source: string, message: string) => void, url?: string);
    get connected(): boolean;
    get closed(): boolean;
    /** Send a message, now or when there is a connection. */
    send(message: Outgoing): void;
    /** Close the connection for good. */
    disconnect(): void;
}
/**
 * - `idle`: made, not asked to connect yet
 * - `connecting`: dialling, or joining the channels again
 * - `open`: ready; what is sent goes out at once
 * - `waiting`: the connection is lost; the next attempt has a time
 * - `suspended`: offline or frozen; the next attempt comes when the browser says it makes sense
 * - `closed`: ended on purpose, by the application or by the server
 * - `failed`: the server will not have us with what we showed it
 */
type State = "idle" | "connecting" | "open" | "waiting" | "suspended" | "closed" | "failed";
interface StateChange {
    state: State;
    previous: State;
    /** Why the connection ended, where one did. */
    close?: Close | undefined;
    /** Milliseconds until the next attempt, in `waiting`. */
    delay?: number | undefined;
}
export { Client, GatewayError, Socket, type AnySchema, type Channel, type ChannelMessages, type ClientEvents, type ClientOptions, type Close, type Dropped, type Gap, type History, type Left, type Message, type Messages, type Outgoing, type Position, type Presence, type QueueLimits, type RequestOptions, type Schema, type Source, type State, type StateChange, type Stats, type Welcome };
/** The global that gateway.js defines. */
export as namespace gateway;
