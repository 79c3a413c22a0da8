import { expect, test } from "vitest";
import { Backoff } from "./backoff";
import { seeded } from "./fakes";

/** The delays of many clients that all failed `failures` times before. */
function delays(failures: number, count = 4000): number[] {
  const random = seeded(7);
  return Array.from({ length: count }, () => {
    const backoff = new Backoff(500, 20_000, random);
    for (let i = 0; i < failures; i++) backoff.next();
    return backoff.next();
  });
}

test.each([
  [0, 500],
  [1, 1000],
  [3, 4000],
  [6, 20_000],
  [2000, 20_000],
])("after %i failures every delay up to %i ms is equally likely", (failures, ceiling) => {
  const all = delays(failures, failures > 100 ? 500 : 4000);
  const tenths = new Array<number>(10).fill(0);
  for (const delay of all) {
    expect(delay).toBeGreaterThanOrEqual(0);
    expect(delay).toBeLessThan(ceiling);
    const tenth = Math.floor((delay / ceiling) * 10);
    tenths[tenth] = (tenths[tenth] ?? 0) + 1;
  }
  for (const size of tenths) {
    expect(size).toBeGreaterThan(all.length * 0.06);
    expect(size).toBeLessThan(all.length * 0.14);
  }
});

test("a reset begins again with short delays", () => {
  const backoff = new Backoff(500, 20_000, () => 0.999);
  for (let i = 0; i < 9; i++) backoff.next();
  expect(backoff.next()).toBeCloseTo(19_980);
  backoff.reset();
  expect(backoff.next()).toBeCloseTo(499.5);
});
