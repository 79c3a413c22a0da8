import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { renewalDelay } from "./token";

const jwt = (payload: object): string =>
  `e30.${btoa(JSON.stringify(payload)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}.c2ln`;

beforeEach(() => vi.useFakeTimers({ now: 1_000_000_000 }));
afterEach(() => vi.useRealTimers());

test("a token is renewed well before it expires", () => {
  expect(renewalDelay(jwt({ exp: 1_000_000 + 100, sub: "ÿÿ>>??" }))).toBe(80_000);
});

test.each(["opaque", "a.b.c", "", jwt({}), jwt({ exp: "soon" }), jwt({ exp: 999_999 })])(
  "%s says nothing about when to renew",
  (token) => {
    expect(renewalDelay(token)).toBeNull();
  },
);
