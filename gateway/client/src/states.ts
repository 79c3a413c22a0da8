import type { Close } from "./close";

/**
 * - `idle`: made, not asked to connect yet
 * - `connecting`: dialling, or joining the channels again
 * - `open`: ready; what is sent goes out at once
 * - `waiting`: the connection is lost; the next attempt has a time
 * - `suspended`: offline or frozen; the next attempt comes when the browser says it makes sense
 * - `closed`: ended on purpose, by the application or by the server
 * - `failed`: the server will not have us with what we showed it
 */
export type State = "idle" | "connecting" | "open" | "waiting" | "suspended" | "closed" | "failed";

/** Whether there will be no connection unless the application asks for one. */
export const isOver = (state: State): boolean => state === "closed" || state === "failed";

export interface StateChange {
  state: State;
  previous: State;
  /** Why the connection ended, where one did. */
  close?: Close | undefined;
  /** Milliseconds until the next attempt, in `waiting`. */
  delay?: number | undefined;
}

/** What may follow what; the model test holds the client to it. */
export const TRANSITIONS: Readonly<Record<State, readonly State[]>> = {
  idle: ["connecting", "closed"],
  connecting: ["open", "waiting", "suspended", "closed", "failed"],
  open: ["connecting", "waiting", "suspended", "closed", "failed"],
  waiting: ["connecting", "suspended", "closed"],
  suspended: ["connecting", "closed"],
  closed: ["connecting"],
  failed: ["connecting", "closed"],
};
