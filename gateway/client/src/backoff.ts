/**
 * How long to wait before the next attempt: full jitter.
 *
 * Any moment between now and the ceiling is equally likely, at the cap as well: clamping after
 * the draw would make clients that lost the same node come back in step.
 */
export class Backoff {
  #failures = 0;
  readonly #first: number;
  readonly #cap: number;
  readonly #random: () => number;

  constructor(first = 500, cap = 20_000, random: () => number = Math.random) {
    this.#first = first;
    this.#cap = cap;
    this.#random = random;
  }

  next(): number {
    const ceiling = Math.min(this.#cap, this.#first * 2 ** this.#failures++);
    return this.#random() * ceiling;
  }

  reset(): void {
    this.#failures = 0;
  }
}
