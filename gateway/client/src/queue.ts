import type { Outgoing } from "./message";

export interface QueueLimits {
  /** How many messages; default 100. */
  count?: number;
  /** How many bytes of JSON; default 262144. */
  bytes?: number;
  /** How many milliseconds a message may wait; default 60000. */
  age?: number;
}

/** A message that was given up, and why: one of ours that was never sent, or one nobody took in time (`slow`). */
export interface Dropped {
  message: Outgoing;
  reason: "count" | "bytes" | "age" | "closed" | "slow";
}

interface Item {
  message: Outgoing;
  text: string;
  bytes: number;
  since: number;
}

/** Messages that wait for a connection, oldest first; the oldest make room for new ones. */
export class Queue {
  #items: Item[] = [];
  #bytes = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #limits: Required<QueueLimits>;
  readonly #drop: (dropped: Dropped) => void;

  constructor(limits: QueueLimits, drop: (dropped: Dropped) => void) {
    this.#limits = { count: 100, bytes: 262_144, age: 60_000, ...limits };
    this.#drop = drop;
  }

  get size(): number {
    return this.#items.length;
  }

  push(message: Outgoing, text: string): void {
    const bytes = new TextEncoder().encode(text).length;
    if (bytes > this.#limits.bytes) return this.#drop({ message, reason: "bytes" });
    this.#items.push({ message, text, bytes, since: Date.now() });
    this.#bytes += bytes;
    while (this.#items.length > this.#limits.count) this.#shift("count");
    while (this.#bytes > this.#limits.bytes) this.#shift("bytes");
    this.#watch();
  }

  /** Send in order until the queue is empty or `send` says no. */
  drain(send: (message: Outgoing, text: string) => boolean): void {
    this.#expire();
    while (this.#items[0] && send(this.#items[0].message, this.#items[0].text)) this.#shift();
    this.#watch();
  }

  /** Take a request out that nobody waits for any more. */
  remove(id: string | number): void {
    this.#items = this.#items.filter(({ message, bytes }) => {
      if (message.id === id) this.#bytes -= bytes;
      return message.id !== id;
    });
  }

  clear(): void {
    while (this.#items.length) this.#shift("closed");
  }

  #shift(reason?: Dropped["reason"]): void {
    const item = this.#items.shift();
    if (!item) return;
    this.#bytes -= item.bytes;
    if (reason) this.#drop({ message: item.message, reason });
  }

  #expire(): void {
    const oldest = Date.now() - this.#limits.age;
    while (this.#items[0] && this.#items[0].since <= oldest) this.#shift("age");
  }

  #watch(): void {
    clearTimeout(this.#timer);
    const [first] = this.#items;
    if (!first || this.#limits.age === Infinity) return;
    this.#timer = setTimeout(
      () => {
        this.#expire();
        this.#watch();
      },
      first.since + this.#limits.age - Date.now(),
    );
  }
}
