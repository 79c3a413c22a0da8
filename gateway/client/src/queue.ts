import type { Outgoing } from "./message";
import { limit, now, Timer } from "./timer";

export interface QueueLimits {
  /** How many messages; default 100. */
  count?: number;
  /** How many bytes of JSON; default 262144. */
  bytes?: number;
  /** How many milliseconds a message may wait; default 60000, 0 for as long as it takes. */
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
  readonly #timer = new Timer();
  readonly #limits: Required<QueueLimits>;
  readonly #drop: (dropped: Dropped) => void;

  constructor(limits: QueueLimits, drop: (dropped: Dropped) => void) {
    this.#limits = { count: 100, bytes: 262_144, ...limits, age: limit("queue.age", limits.age, 60_000) };
    this.#drop = drop;
  }

  get size(): number {
    return this.#items.length;
  }

  push(message: Outgoing, text: string): void {
    const bytes = new TextEncoder().encode(text).length;
    if (bytes > this.#limits.bytes) return this.#drop({ message, reason: "bytes" });
    this.#items.push({ message, text, bytes, since: now() });
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
    this.#watch();
  }

  clear(): void {
    while (this.#items.length) this.#shift("closed");
    this.#watch();
  }

  #shift(reason?: Dropped["reason"]): void {
    const item = this.#items.shift();
    if (!item) return;
    this.#bytes -= item.bytes;
    if (reason) this.#drop({ message: item.message, reason });
  }

  #expire(): void {
    const oldest = now() - this.#limits.age;
    while (this.#items[0] && this.#items[0].since <= oldest) this.#shift("age");
  }

  #watch(): void {
    const [first] = this.#items;
    this.#timer.start(first ? first.since + this.#limits.age - now() : Infinity, () => {
      this.#expire();
      this.#watch();
    });
  }
}
