import { errorOf, GatewayError } from "./errors";
import type { Message } from "./message";
import { limit, Timer } from "./timer";

interface Waiting {
  resolve(param: unknown): void;
  reject(error: unknown): void;
  /** Stop the clock, and stop hearing the signal. */
  end(): void;
  /** Whether the request left this page: only then can the end of a connection lose its answer. */
  sent: boolean;
}

export interface WaitOptions {
  /** Milliseconds until the promise rejects with `timeout`; 0 for never. */
  timeout: number;
  signal?: AbortSignal | undefined;
}

const aborted = (): GatewayError => new GatewayError("aborted", "the request was aborted");

/** Requests without an answer yet, by id. */
export class Requests {
  #next = 1;
  readonly #waiting = new Map<number, Waiting>();

  get size(): number {
    return this.#waiting.size;
  }

  /** Promise the answer to the request that `start` sends; `cancel` is called when it is given up. */
  open(
    { timeout, signal }: WaitOptions,
    start: (id: number) => void,
    cancel: (id: number) => void,
  ): Promise<unknown> {
    const id = this.#next++;
    const promise = new Promise<unknown>((resolve, reject) => {
      const give = (error: GatewayError): void => {
        this.fail(id, error);
        cancel(id);
      };
      const timer = new Timer();
      timer.start(limit("timeout", timeout, 0), () =>
        give(new GatewayError("timeout", `no answer within ${timeout} ms`)),
      );
      const abort = (): void => give(aborted());
      const end = (): void => {
        timer.stop();
        signal?.removeEventListener("abort", abort);
      };
      signal?.addEventListener("abort", abort);
      this.#waiting.set(id, { resolve, reject, end, sent: false });
    });
    if (signal?.aborted) this.fail(id, aborted());
    else this.#start(id, start);
    return promise;
  }

  /** Note that a request went out. */
  sent(id: unknown): void {
    const request = this.#waiting.get(id as number);
    if (request) request.sent = true;
  }

  /** Take a `$reply` or `$error`; false when nobody waits for it. */
  settle(message: Message): boolean {
    const request = this.#take(message.id);
    if (message.cmd === "$error") request?.reject(errorOf(message));
    else request?.resolve(message.param);
    return !!request;
  }

  fail(id: unknown, error: unknown): void {
    this.#take(id)?.reject(error);
  }

  /** The connection is gone: what was sent over it will not be answered. */
  lost(): void {
    for (const [id, { sent }] of this.#waiting) {
      if (sent) this.fail(id, new GatewayError("closed", "the connection was lost before the answer came"));
    }
  }

  #start(id: number, start: (id: number) => void): void {
    try {
      start(id);
    } catch (error) {
      // A param that JSON cannot hold.
      this.fail(id, error);
    }
  }

  #take(id: unknown): Waiting | undefined {
    const request = this.#waiting.get(id as number);
    this.#waiting.delete(id as number);
    request?.end();
    return request;
  }
}
