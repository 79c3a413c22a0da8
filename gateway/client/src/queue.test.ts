import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Dropped, Queue, type QueueLimits } from "./queue";

let dropped: Dropped[];

beforeEach(() => {
  dropped = [];
  vi.useFakeTimers();
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function queueWith(limits: QueueLimits = {}) {
  const queue = new Queue(limits, (one) => dropped.push(one));
  const push = (cmd: string, id?: number) => {
    const message = id === undefined ? { cmd } : { cmd, id };
    queue.push(message, JSON.stringify(message));
  };
  const drained = () => {
    const sent: string[] = [];
    queue.drain((message) => sent.push(message.cmd) > 0);
    return sent;
  };
  return { queue, push, drained };
}

const reasons = () => dropped.map(({ message, reason }) => `${message.cmd} ${reason}`);

test("what waits goes out in order, once", () => {
  const { push, drained } = queueWith();
  push("a");
  push("b");
  expect(drained()).toEqual(["a", "b"]);
  expect(drained()).toEqual([]);
  expect(dropped).toEqual([]);
});

test("what is not taken keeps its place", () => {
  const { queue, push, drained } = queueWith();
  push("a");
  push("b");
  queue.drain((message) => message.cmd === "a");
  push("c");
  expect(drained()).toEqual(["b", "c"]);
});

test("by default a hundred messages fit", () => {
  const { queue, push } = queueWith();
  for (let i = 0; i < 101; i++) push(`m${i}`);
  expect(queue.size).toBe(100);
  expect(reasons()).toEqual(["m0 count"]);
});

test("the oldest make room for new bytes", () => {
  const { push, drained } = queueWith({ bytes: 30 });
  push("aaaa");
  push("bbbb");
  push("cc");
  expect(reasons()).toEqual(["aaaa bytes"]);
  expect(drained()).toEqual(["bbbb", "cc"]);
});

test("bytes are counted, not characters", () => {
  const { push } = queueWith({ bytes: 20 });
  push("äöüäöüä");
  expect(reasons()).toEqual(["äöüäöüä bytes"]);
});

test("a message that can never fit pushes nothing else out", () => {
  const { push, drained } = queueWith({ bytes: 20 });
  push("a");
  push("much too long for this queue");
  expect(reasons()).toEqual(["much too long for this queue bytes"]);
  expect(drained()).toEqual(["a"]);
});

test("what waits too long is reported when its time is over", () => {
  const { push, drained } = queueWith({ age: 1000 });
  push("a");
  vi.advanceTimersByTime(600);
  push("b");
  vi.advanceTimersByTime(399);
  expect(dropped).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(reasons()).toEqual(["a age"]);
  vi.advanceTimersByTime(600);
  expect(reasons()).toEqual(["a age", "b age"]);
  expect(drained()).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

test("what a sleeping page could not drop in time is dropped before sending", () => {
  const { push, drained } = queueWith({ age: 1000 });
  push("a");
  vi.spyOn(performance, "now").mockReturnValue(performance.now() + 5000);
  expect(drained()).toEqual([]);
  expect(reasons()).toEqual(["a age"]);
});

test("a request that was given up leaves silently, with its bytes", () => {
  const { queue, push, drained } = queueWith({ bytes: 40 });
  push("a", 1);
  push("b", 2);
  queue.remove(1);
  push("c", 3);
  expect(dropped).toEqual([]);
  expect(drained()).toEqual(["b", "c"]);
});

test("clearing reports everything", () => {
  const { queue, push } = queueWith();
  push("a");
  push("b");
  queue.clear();
  expect(reasons()).toEqual(["a closed", "b closed"]);
  expect(queue.size).toBe(0);
});
