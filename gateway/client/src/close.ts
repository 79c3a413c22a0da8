/** How a WebSocket ended: its close code and the reason text. */
export interface Close {
  code: number;
  reason: string;
}

/** What a client does about a close: try again, try again with other credentials, or stop. */
export type Verdict = "retry" | "renew" | "closed" | "failed";

/** No close frame arrived; browsers report this code and never send it. */
export const LOST = 1006;

/** A server that asks for more than this is mistaken, and a page must not wait for hours. */
const LONGEST_DELAY = 300_000;

const VERDICTS: Record<number, Verdict> = { 4400: "failed", 4401: "renew", 4403: "failed", 4410: "closed" };

export function verdict(close: Close): Verdict {
  return VERDICTS[close.code] ?? "retry";
}

/** The pause in milliseconds that a server asked for who wants us back, or null. */
export function retryAfter(close: Close): number | null {
  if (verdict(close) !== "retry") return null;
  const seconds = /\bretry_after=(\d+(?:\.\d+)?)/.exec(close.reason)?.[1];
  return seconds === undefined ? null : Math.min(Number(seconds) * 1000, LONGEST_DELAY);
}
