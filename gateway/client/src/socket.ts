import { resolve } from "./address";
import { Connection } from "./connection";
import { isolated } from "./emitter";
import { encode } from "./encode";
import type { Message, Outgoing } from "./message";
import { Queue } from "./queue";
import { isOver } from "./states";

/**
 * The plain client: five arguments, `send` and `disconnect`.
 *
 * It connects at once, keeps up to 100 messages while there is no connection (the oldest give way),
 * reconnects by itself, and ends for good on `close-connection`. It speaks no subprotocol, so there
 * are no replies, positions or gaps: that is what `Client` is for.
 */
export class Socket {
  readonly url: string;
  readonly debug: boolean;
  readonly #connection: Connection;
  readonly #pending: Queue;
  readonly #onError: (source: string, message: string) => void;

  constructor(
    debug: boolean,
    onOpen: () => void,
    onMessage: (message: Message) => void,
    onError: (source: string, message: string) => void,
    url = "/connect",
  ) {
    this.debug = debug;
    this.url = resolve(url);
    this.#onError = onError;
    this.#pending = new Queue({ count: 100, bytes: Infinity, age: Infinity }, ({ message }) =>
      this.#error(`dropped a waiting ${message.cmd}`),
    );
    this.#connection = new Connection({
      address: () => ({ url: this.url, protocols: [] }),
      canRenew: () => false,
      opened: () => {
        this.#pending.drain((_, text) => this.#connection.transmit(text));
        this.#connection.ready();
      },
      received: (message) => {
        this.#log("received", message);
        if (message.cmd === "close-connection") this.disconnect();
        else isolated(onMessage, message);
      },
      malformed: () => this.#error("received what is no message"),
      lost: ({ code, reason }) => code !== 1000 && this.#error(`connection lost: ${code} ${reason}`.trim()),
      changed: ({ state }) => {
        this.#log(state);
        if (state === "open") isolated(onOpen);
      },
    });
    this.#connection.connect();
  }

  get connected(): boolean {
    return this.#connection.state === "open";
  }

  get closed(): boolean {
    return isOver(this.#connection.state);
  }

  /** Send a message, now or when there is a connection. */
  send(message: Outgoing): void {
    const text = encode(message);
    this.#log("send", message);
    if (!this.connected || !this.#connection.transmit(text)) this.#pending.push(message, text);
  }

  /** Close the connection for good. */
  disconnect(): void {
    this.#connection.close();
  }

  #error(message: string): void {
    this.#log("error", message);
    isolated(this.#onError, "socket", message);
  }

  #log(...what: unknown[]): void {
    if (this.debug) console.debug("[gateway]", ...what);
  }
}
