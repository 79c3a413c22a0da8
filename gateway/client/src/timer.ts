/** The longest time that setTimeout counts; asked for more it fires at once. */
const LONGEST = 2 ** 31 - 1;

/** Milliseconds of a clock that nobody sets: what measures a duration reads no other. */
export const now = (): number => performance.now();

/** Read a time that an option gives, where it gives one. Throws on what is none. */
export function time(name: string, value: number | undefined, otherwise: number): number {
  const found = value ?? otherwise;
  if (!(found >= 0)) throw new RangeError(`${name}: expected milliseconds, 0 or more, got ${found}`);
  return found;
}

/** The same of a time that limits something: 0 switches a limit off, as `Infinity` does. */
export const limit = (name: string, value: number | undefined, otherwise: number): number =>
  time(name, value, otherwise) || Infinity;

/** Does one thing after a time, however long; after `Infinity` never. Started again it forgets what it was to do. */
export class Timer {
  #id: ReturnType<typeof setTimeout> | undefined;

  get running(): boolean {
    return this.#id !== undefined;
  }

  start(delay: number, act: () => void): void {
    this.stop();
    if (delay === Infinity) return;
    this.#id = setTimeout(
      () => {
        this.#id = undefined;
        if (delay > LONGEST) this.start(delay - LONGEST, act);
        else act();
      },
      Math.min(delay, LONGEST),
    );
  }

  stop(): void {
    clearTimeout(this.#id);
    this.#id = undefined;
  }
}
