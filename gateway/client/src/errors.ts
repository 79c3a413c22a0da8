import type { Message } from "./message";

/** `code` is the server's (`forbidden`, `rate-limited`, ...), or one of `timeout`, `aborted`, `closed`. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  readonly code: string;
  /** The part of `param` that did not validate, with `invalid-param`. */
  readonly field?: string;
  /** Milliseconds after which trying again makes sense, where the server said so. */
  readonly retryAfter?: number;
  /** The channel it is about, where there is one. */
  readonly channel?: string;

  constructor(
    code: string,
    message: string,
    details: { field?: string; retryAfter?: number; channel?: string } = {},
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
    ...(field === undefined ? {} : { field }),
    ...(retry_after === undefined ? {} : { retryAfter: retry_after * 1000 }),
    ...(channel ? { channel } : {}),
  });
}
