import { expect, test } from "vitest";
import { retryAfter, verdict } from "./close";

const close = (code: number, reason = "") => ({ code, reason });

test.each([
  [1000, "retry"],
  [1001, "retry"],
  [1006, "retry"],
  [1008, "retry"],
  [1012, "retry"],
  [1013, "retry"],
  [4008, "retry"],
  [4408, "retry"],
  [4429, "retry"],
  [4401, "renew"],
  [4403, "failed"],
  [4410, "closed"],
])("%i means %s", (code, expected) => {
  expect(verdict(close(code))).toBe(expected);
});

test("a restarting or full node names the pause", () => {
  expect(retryAfter(close(1012, "restart retry_after=2.5"))).toBe(2500);
  expect(retryAfter(close(1013, "retry_after=7"))).toBe(7000);
  expect(retryAfter(close(1012, "retry_after=0"))).toBe(0);
});

test("nobody else does, nor an unreadable reason", () => {
  expect(retryAfter(close(1001, "retry_after=7"))).toBeNull();
  expect(retryAfter(close(1012, "soon"))).toBeNull();
  expect(retryAfter(close(1012, "retry_after=-3"))).toBeNull();
});

test("a pause has a limit", () => {
  expect(retryAfter(close(1012, "retry_after=999999999"))).toBe(300_000);
});
