import { afterEach, expect, test, vi } from "vitest";
import { Emitter } from "./emitter";

interface Events {
  a(value: number): void;
  b(value: number): void;
}

afterEach(() => vi.restoreAllMocks());

test("a listener that throws is reported and harms no other", () => {
  const emitter = new Emitter<Events>();
  const reported = vi.fn();
  vi.stubGlobal("reportError", reported);
  const heard: number[] = [];
  emitter.on("a", () => {
    throw new Error("mine");
  });
  emitter.on("a", (value) => heard.push(value));
  emitter.emit("a", 1);
  expect(heard).toEqual([1]);
  expect(reported).toHaveBeenCalledOnce();
});

test("without a reportError the console hears of it", () => {
  const emitter = new Emitter<Events>();
  vi.stubGlobal("reportError", undefined);
  const error = vi.spyOn(console, "error").mockImplementation(() => {});
  emitter.on("a", () => {
    throw new Error("mine");
  });
  emitter.emit("a", 1);
  expect(error).toHaveBeenCalledOnce();
});

test("events are heard in the order in which they happened", () => {
  const emitter = new Emitter<Events>();
  const heard: string[] = [];
  emitter.on("a", () => emitter.emit("b", 2));
  emitter.on("a", () => heard.push("a"));
  emitter.on("b", () => heard.push("b"));
  emitter.emit("a", 1);
  expect(heard).toEqual(["a", "b"]);
});

test("a removed listener hears nothing more, not even of what is being delivered", () => {
  const emitter = new Emitter<Events>();
  const heard: number[] = [];
  emitter.on("a", () => off());
  const off = emitter.on("a", (value) => heard.push(value));
  emitter.emit("a", 1);
  expect(heard).toEqual([]);
  expect(emitter.has("a")).toBe(true);
});

test("the same function may listen twice", () => {
  const emitter = new Emitter<Events>();
  const listener = vi.fn();
  const off = emitter.on("a", listener);
  emitter.on("a", listener);
  off();
  off();
  emitter.emit("a", 1);
  expect(listener).toHaveBeenCalledOnce();
});
