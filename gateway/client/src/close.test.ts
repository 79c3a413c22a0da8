import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { retryAfter, type Verdict, verdict } from "./close";

/** One table for this client and the one in Python; `tests/test_closes.py` keeps it as the server's code is. */
const table = <Row>(name: string): Row[] =>
  JSON.parse(readFileSync(new URL(`../../../tests/tables/${name}.json`, import.meta.url), "utf8"));

const CLOSES = table<{ code: number; reason: string; reconnect: boolean; verdict: Verdict }>("closes");
const PAUSES = table<{ code: number; reason: string; seconds: number | null }>("retry_after");

test.each(CLOSES)("$code means $verdict", ({ code, reason, reconnect, verdict: expected }) => {
  expect(verdict({ code, reason })).toBe(expected);
  expect(expected === "retry").toBe(reconnect);
});

test.each(PAUSES)("$code with '$reason' asks for a pause of $seconds s", ({ code, reason, seconds }) => {
  expect(retryAfter({ code, reason })).toBe(seconds === null ? null : seconds * 1000);
});
