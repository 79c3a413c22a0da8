import { expect, test, vi } from "vitest";
import { addressOf, resolve, sameAddress } from "./address";

test.each([
  ["/connect?ch=a b", "wss://example.test/connect?ch=a%20b"],
  ["socket", "wss://example.test/app/socket"],
  ["http://other.test/connect", "ws://other.test/connect"],
  ["https://other.test/connect", "wss://other.test/connect"],
  ["ws://other.test:8080/connect", "ws://other.test:8080/connect"],
])("%s becomes %s", (url, expected) => {
  vi.stubGlobal("document", { baseURI: "https://example.test/app/page" });
  expect(resolve(url)).toBe(expected);
});

test("outside a browser the URL has to be whole", () => {
  expect(resolve("ws://other.test/connect")).toBe("ws://other.test/connect");
  expect(() => resolve("/connect")).toThrow();
});

test("a token is shown beside the protocol", () => {
  expect(addressOf("ws://a.test/").protocols).toEqual(["gateway.v1.json"]);
  expect(addressOf("ws://a.test/", "x.y.z").protocols).toEqual(["gateway.v1.json", "gateway.token.x.y.z"]);
});

test("another URL or token is another address", () => {
  const address = addressOf("ws://a.test/", "x");
  expect(sameAddress(address, addressOf("ws://a.test/", "x"))).toBe(true);
  expect(sameAddress(address, addressOf("ws://a.test/", "y"))).toBe(false);
  expect(sameAddress(address, addressOf("ws://b.test/", "x"))).toBe(false);
  expect(sameAddress(null, address)).toBe(false);
});
