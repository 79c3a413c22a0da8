import type { Outgoing } from "./message";

/** What JSON carries, by what `Object.prototype.toString` calls it, and `undefined`, which it leaves out. */
const CARRIED = /^(Null|Undefined|Object|Array|String|Number|Boolean)$/;

/** A backslash of JSON with what it escapes: JSON.stringify writes half of a surrogate pair so, and no other. */
const ESCAPED = /\\(ud[89a-f]..|.)/g;

/**
 * Write a frame. Half of a surrogate pair, as `slice` leaves it of an emoji, becomes U+FFFD. Throws a `TypeError` that
 * names the place of what would arrive as something else: bytes, a `Map`, a function, `NaN`, an object within itself.
 */
export function encode(message: Outgoing): string {
  const places = new Map<unknown, string>();
  let place = "";
  const check = function (this: Record<string, unknown>, key: string, value: unknown): unknown {
    const above = places.get(this);
    place = above ? `${above}.${key}` : key;
    const before = this[key];
    // A Buffer turns itself into an object, and an invalid Date into null.
    const judged = ArrayBuffer.isView(before) || value === null ? before : value;
    const kind = Object.prototype.toString.call(judged).slice(8, -1);
    if (!CARRIED.test(kind)) throw new Error(kind);
    if (kind === "Number" && !Number.isFinite(Number(judged))) throw new Error(`${judged}`);
    places.set(value, place);
    return value;
  };
  try {
    return JSON.stringify(message, check).replace(ESCAPED, (all, { length }) =>
      length > 1 ? "\ufffd" : all,
    );
  } catch (error) {
    // That an object holds itself JSON.stringify notices right after `check` was there.
    throw new TypeError(`${place}: JSON cannot carry this: ${(error as Error).message}`);
  }
}
