"use client";

import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { Channel, Left } from "./channel";
import type { Client } from "./client";
import type { GatewayError } from "./errors";
import type { Message } from "./message";
import type { Gap } from "./progress";
import type { Presence } from "./roster";
import type { AnySchema, ChannelMessages, Schema } from "./schema";
import type { State } from "./states";

/** Listeners of a channel by command; they may be new functions in every render. */
export type Listeners<S extends Schema = AnySchema> = {
  [C in keyof S["messages"]]?: (param: S["messages"][C], message: Message<S["messages"][C]>) => void;
} & {
  [C in keyof ChannelMessages]?: (param: ChannelMessages[C], message: Message<ChannelMessages[C]>) => void;
} & {
  /** Messages may have been missed. */
  $gap?: (gap: Gap, message: Message<Gap>) => void;
  /** The server has taken us out; `error` is then set as well. */
  $left?: (left: Left, message: Message<Left>) => void;
};

export interface UsedChannel<S extends Schema = AnySchema> {
  channel: Channel<S>;
  /** Whether the node has let us in; stays true while the client reconnects. */
  joined: boolean;
  /** Why it does not let us in, or has taken us out: `code` is then the reason, `forbidden` or `removed`. */
  error: GatewayError | null;
}

/** The part of a channel that a membership needs, with what it tells of that beside the server's commands. */
interface Joinable extends Pick<Channel, "join" | "leave" | "wanted"> {
  on(event: "$in", entered: () => void): () => void;
  on(event: "$out", refused: (error: GatewayError) => void): () => void;
}

/** How many components use a channel that was joined for them. */
const uses = new WeakMap<object, number>();

/** The state of the connection; `idle` while rendering on a server. */
export function useConnectionState<S extends Schema>(client: Client<S>): State {
  return useSyncExternalStore(
    (changed) => client.on("state", changed),
    () => client.state,
    () => "idle",
  );
}

/**
 * Be in a channel while mounted, and hear it.
 *
 * All components that use the same channel share one membership; it is left a moment after the last of them is
 * gone, so a remount (StrictMode's, or a move to another page) is not a leave and a join to anybody. A channel that
 * the application has joined by itself is not left.
 */
export function useChannel<S extends Schema>(
  client: Client<S>,
  name: string,
  listeners: Listeners<S> = {},
): UsedChannel<S> {
  const channel = useMemo(() => client.channel(name), [client, name]);
  const latest = useRef(listeners);
  useEffect(() => {
    latest.current = listeners;
  });
  useEffect(() => {
    const hear = (param: unknown, message: Message): void =>
      (latest.current as Record<string, (param: unknown, message: Message) => void>)[message.cmd]?.(
        param,
        message,
      );
    const ends = [
      channel.on("*", hear),
      channel.on("$gap", hear as (gap: Gap, message: Message) => void),
      channel.on("$left", hear as (left: Left, message: Message) => void),
    ];
    return () => {
      for (const end of ends) end();
    };
  }, [channel]);
  return { channel, ...useMembership(channel as Joinable) };
}

/** Who is in a channel, kept current while mounted; null until known. Joins the channel as `useChannel` does. */
export function usePresence<S extends Schema>(client: Client<S>, name: string): Presence | null {
  const { channel } = useChannel(client, name);
  const [seen, setSeen] = useState<{ channel: object; presence: Presence } | null>(null);
  useEffect(() => channel.watchPresence((presence) => setSeen({ channel, presence })), [channel]);
  return seen?.channel === channel ? seen.presence : null;
}

function useMembership(channel: Joinable): { joined: boolean; error: GatewayError | null } {
  const [result, setResult] = useState<{ channel: object; error: GatewayError | null } | null>(null);
  useEffect(() => {
    let mounted = true;
    const settle = (error: GatewayError | null): void => {
      if (mounted) setResult({ channel, error });
    };
    const entered = (): void => settle(null);
    const ends = [channel.on("$in", entered), channel.on("$out", settle)];
    hold(channel).then(entered, settle);
    return () => {
      mounted = false;
      for (const end of ends) end();
      release(channel);
    };
  }, [channel]);
  const settled = result?.channel === channel;
  const error = settled ? result.error : null;
  return { joined: settled && !error, error };
}

function hold(channel: Joinable): Promise<void> {
  const users = uses.get(channel);
  if (users !== undefined) uses.set(channel, users + 1);
  else if (!channel.wanted) uses.set(channel, 1);
  return channel.join();
}

function release(channel: Joinable): void {
  const users = uses.get(channel);
  if (users === undefined) return;
  uses.set(channel, users - 1);
  setTimeout(() => {
    if (uses.get(channel) !== 0) return;
    uses.delete(channel);
    channel.leave().catch(() => {});
  });
}
