import { describe, expect, test } from "vitest";
import { encode } from "./encode";

const param = (value: unknown) => JSON.parse(encode({ cmd: "x", param: value })).param;
const self: Record<string, unknown> = { list: [] };
(self.list as unknown[]).push(self);

describe("half a surrogate pair becomes U+FFFD", () => {
  test.each([
    ["nice 😀".slice(0, 6), "nice \ufffd"],
    ["😀".slice(1), "\ufffd"],
    [{ "a\ud83d": ["\udc00b"] }, { "a\ufffd": ["\ufffdb"] }],
    ["\ud83d\ud83d😀", "\ufffd\ufffd😀"],
  ])("in %j", (sent, arrived) => {
    expect(param(sent)).toEqual(arrived);
  });

  test("in the command and the channel as well", () => {
    const message = JSON.parse(encode({ cmd: "x\ud800", channel: "y\udfff" }));
    expect(message).toEqual({ cmd: "x\ufffd", channel: "y\ufffd" });
  });

  test.each(["😀", "\\ud83d", "\\\\ud83d", '\\"\u0000\u2028\b', "\\\\", "\ufffd"])(
    "and %j is left alone",
    (text) => {
      expect(param(text)).toBe(text);
    },
  );
});

test.each<{ what: string; value: unknown; place: string }>([
  { what: "Uint8Array", value: { b: new Uint8Array([1, 2, 3]) }, place: "param.b" },
  { what: "Uint8Array", value: Buffer.from("abc"), place: "param" },
  { what: "ArrayBuffer", value: [0, { b: new ArrayBuffer(1) }], place: "param.1.b" },
  { what: "DataView", value: new DataView(new ArrayBuffer(1)), place: "param" },
  { what: "Map", value: { deep: { er: new Map([["a", 1]]) } }, place: "param.deep.er" },
  { what: "Set", value: new Set([1]), place: "param" },
  { what: "Blob", value: { file: new Blob(["a"]) }, place: "param.file" },
  { what: "RegExp", value: [/a/], place: "param.0" },
  { what: "Error", value: { why: new Error("secret") }, place: "param.why" },
  { what: "Promise", value: { later: Promise.resolve(1) }, place: "param.later" },
  { what: "Function", value: { call: () => 1 }, place: "param.call" },
  { what: "Symbol", value: [Symbol("s")], place: "param.0" },
  { what: "BigInt", value: { n: 10n }, place: "param.n" },
  { what: "NaN", value: { n: Number.NaN }, place: "param.n" },
  { what: "-Infinity", value: [1, -Infinity], place: "param.1" },
  { what: "Date", value: { at: new Date(Number.NaN) }, place: "param.at" },
  { what: "circular", value: self, place: "param.list.0" },
])("$what at $place is refused by its name", ({ what, value, place }) => {
  const send = () => encode({ cmd: "x", param: value });
  expect(send).toThrow(TypeError);
  expect(send).toThrow(`${place}: `);
  expect(send).toThrow(what);
});

test("what JSON carries goes out as JSON writes it", () => {
  class Point {
    x = 1;
  }
  const shared = { a: 1 };
  const value = {
    ...{ at: new Date(0), url: new URL("https://a.test/"), point: new Point(), none: null, left: undefined },
    ...{ twice: [shared, shared], "a.b": shared, bare: Object.create(null), n: -0.5, flag: false },
  };
  expect(encode({ cmd: "x", param: value })).toBe(JSON.stringify({ cmd: "x", param: value }));
});
