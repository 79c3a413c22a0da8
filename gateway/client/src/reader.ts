/** Messages one after the other: `for await (const message of channel.messages("chat"))`. */
export type Messages<M> = AsyncIterableIterator<M, undefined>;

/**
 * Turn what is pushed into what is asked for.
 *
 * Up to `limit` items wait for a reader who is slow; past that the oldest one is dropped. After the end
 * those that wait are still read.
 */
export function reader<T>(
  limit: number,
  start: (push: (item: T) => void, end: () => void) => (() => void)[],
  drop: (item: T) => void,
): Messages<T> {
  const items: T[] = [];
  const takers: ((result: IteratorResult<T, undefined>) => void)[] = [];
  const done: IteratorReturnResult<undefined> = { done: true, value: undefined };
  const value = (value: T): IteratorYieldResult<T> => ({ done: false, value });
  let open = true;
  const end = (): void => {
    open = false;
    for (const off of offs) off();
    for (const take of takers.splice(0)) take(done);
  };
  const offs = start((item) => {
    const take = takers.shift();
    if (take) take(value(item));
    else if (items.push(item) > limit) drop(items.shift() as T);
  }, end);
  return {
    async next() {
      if (items.length) return value(items.shift() as T);
      return open ? new Promise((take) => takers.push(take)) : done;
    },
    async return() {
      items.length = 0;
      end();
      return done;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
