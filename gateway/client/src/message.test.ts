import { expect, test } from "vitest";
import { parse } from "./message";

test("a message gets the defaults it leaves out", () => {
  expect(parse('{"cmd":"hello"}')).toEqual({ channel: "", cmd: "hello", param: null });
});

test("what a message carries is kept", () => {
  const message = { channel: "lobby", cmd: "chat", param: { text: "hi" }, from: "ada", offset: 3, id: 4 };
  expect(parse(JSON.stringify(message))).toEqual(message);
});

test.each(["", "null", "[]", "7", '"cmd"', "{}", '{"cmd":1}', "{", undefined])("%o is no message", (data) => {
  expect(parse(data)).toBeNull();
});
