/**
 * What a gateway's handlers take and send, for the type parameter of a client:
 *
 *     interface Chat {
 *       commands: { chat: { param: { text: string }; reply: null } };
 *       messages: { chat: { user: string; text: string; time: number } };
 *     }
 *     const client = new Client<Chat>("/connect");
 */
export interface Schema {
  /** By command, from client to server: `{ param, reply }`. */
  commands: object;
  /** By command, from server to client: the type of `param`. */
  messages: object;
}

// biome-ignore lint/suspicious/noExplicitAny: without a schema a client must be usable without casts
type Untyped = any;

/** Stands in where no schema is given: every command, any param. */
export interface AnySchema {
  commands: { [cmd: string]: { param?: Untyped; reply: Untyped } };
  messages: { [cmd: string]: Untyped };
}

/** Messages that every gateway sends to the members of a channel. */
export interface ChannelMessages {
  "online-update": { userID: string; connected: boolean };
  "online-count": { count: number };
}

export type Command<S extends Schema> = keyof S["commands"] & string;

export type Param<S extends Schema, C extends Command<S>> = S["commands"][C] extends { param?: infer P }
  ? P
  : undefined;

export type Reply<S extends Schema, C extends Command<S>> = S["commands"][C] extends { reply: infer R }
  ? R
  : unknown;

/** `param` and what follows it; `param` may be left out where the command takes null or nothing. */
export type Arguments<P, Rest extends unknown[] = []> = undefined extends P
  ? [param?: P, ...rest: Rest]
  : null extends P
    ? [param?: P, ...rest: Rest]
    : [param: P, ...rest: Rest];
