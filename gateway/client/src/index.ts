export type { Channel, History, Left, RequestOptions } from "./channel";
export {
  Client,
  type ClientEvents,
  type ClientOptions,
  type Source,
  type Stats,
  type Welcome,
} from "./client";
export type { Close } from "./close";
export { GatewayError } from "./errors";
export type { Message, Outgoing } from "./message";
export type { Gap, Position } from "./progress";
export type { Dropped, QueueLimits } from "./queue";
export type { Messages } from "./reader";
export type { Presence } from "./roster";
export type { AnySchema, ChannelMessages, Schema } from "./schema";
export { Socket } from "./socket";
export type { State, StateChange } from "./states";
