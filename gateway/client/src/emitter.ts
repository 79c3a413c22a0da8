/** Hand an exception of a listener to the page's error reporting, away from our own stack. */
const report = (error: unknown): void => (globalThis.reportError ?? console.error)(error);

export function isolated<A extends unknown[]>(listener: (...args: A) => void, ...args: A): void {
  try {
    listener(...args);
  } catch (error) {
    report(error);
  }
}

/**
 * Listeners by name. One that throws harms neither the others nor the caller.
 *
 * What a listener causes to be emitted is delivered after what is being delivered, so every
 * listener sees events in the order in which they happened.
 */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<{ call: (...args: never[]) => void }>>();
  readonly #pending: (() => void)[] = [];
  #delivering = false;

  on<N extends keyof Events>(name: N, listener: Events[N]): () => void {
    const entry = { call: listener as (...args: never[]) => void };
    const entries = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, entries.add(entry));
    return () => void entries.delete(entry);
  }

  emit<N extends keyof Events>(
    name: N,
    ...args: Events[N] extends (...args: infer A) => unknown ? A : never
  ): void {
    const entries = this.#listeners.get(name);
    for (const entry of entries ?? []) {
      this.#pending.push(() => {
        if (entries?.has(entry)) isolated(entry.call as (...args: unknown[]) => void, ...args);
      });
    }
    this.#deliver();
  }

  has(name: keyof Events): boolean {
    return !!this.#listeners.get(name)?.size;
  }

  #deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    for (let next = this.#pending.shift(); next; next = this.#pending.shift()) next();
    this.#delivering = false;
  }
}
