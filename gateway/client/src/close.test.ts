import { expect, test } from "vitest";
import { retryAfter, type Verdict, verdict } from "./close";
import { table } from "./tables";

const CLOSES = table<{ code: number; reason: string; reconnect: boolean; verdict: Verdict }>("closes");
const PAUSES = table<{ code: number; reason: string; seconds: number | null }>("retry_after");

test.each(CLOSES)("$code means $verdict", ({ code, reason, reconnect, verdict: expected }) => {
  expect(verdict({ code, reason })).toBe(expected);
  expect(expected === "retry").toBe(reconnect);
});

test.each(PAUSES)("$code with '$reason' asks for a pause of $seconds s", ({ code, reason, seconds }) => {
  expect(retryAfter({ code, reason })).toBe(seconds === null ? null : seconds * 1000);
});
