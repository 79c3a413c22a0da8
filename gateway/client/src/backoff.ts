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

  /** Without a first pause the second one is as it would be by default. */
  constructor(first = 500, cap = 20_000, random: () => number = Math.random) {
    this.#first = first;
    this.#cap = cap;
    this.#random = random;
  }

  next(): number {
    const first = this.#first || (this.#failures && 250);
    const ceiling = Math.min(this.#cap, first * 2 ** this.#failures++);
    return ceiling === Infinity ? ceiling : this.#random() * ceiling;
  }

  reset(): void {
    this.#failures = 0;
  }
}
