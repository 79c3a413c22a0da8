import type { Message } from "./message";

/** `code` is the server's (`forbidden`, `rate-limited`, ...), or one of `timeout`, `aborted`, `closed`. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  readonly code: string;
  /** The part of `param` that did not validate, with `invalid-param`. */
  declare readonly field?: string | undefined;
  /** Milliseconds after which trying again makes sense, where the server said so. */
  declare readonly retryAfter?: number | undefined;
  /** The channel it is about, where there is one. */
  declare readonly channel?: string | undefined;

  constructor(
    code: string,
    message: string,
    details: Pick<GatewayError, "field" | "retryAfter" | "channel"> = {},
  ) {
    super(message);
    this.code = code;
    Object.assign(this, details);
  }
}

interface ErrorParam {
  code?: string;
  message?: string;
  field?: string;
  retry_after?: number;
}

/** The error that a `$error` message carries. */
export function errorOf({ param, channel }: Message): GatewayError {
  const { code = "internal", message = code, field, retry_after } = (param ?? {}) as ErrorParam;
  return new GatewayError(code, message, {
    field,
    retryAfter: retry_after && retry_after * 1000,
    channel: channel || undefined,
  });
}

const PASSING = ["unavailable", "rate-limited", "timeout", "internal"];

/** In how many milliseconds the same may be granted; 0 for never. */
export const pauseAfter = ({ code, retryAfter }: GatewayError): number =>
  PASSING.includes(code) ? (retryAfter || 2000) * (1 + Math.random()) : 0;
