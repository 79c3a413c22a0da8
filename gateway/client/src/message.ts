/** One message from the server. */
export interface Message<P = unknown> {
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
export interface Outgoing {
  channel?: string | undefined;
  cmd: string;
  param?: unknown;
  id?: string | number;
}

/** Read a frame; null when it is not a message. */
export function parse(data: unknown): Message | null {
  try {
    const message = JSON.parse(data as string);
    if (typeof message?.cmd !== "string") return null;
    message.channel ??= "";
    message.param ??= null;
    return message;
  } catch {
    return null;
  }
}
