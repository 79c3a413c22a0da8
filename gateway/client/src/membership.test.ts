import { beforeEach, describe, expect, test } from "vitest";
import { Membership } from "./membership";
import type { Message } from "./message";

let membership: Membership;

beforeEach(() => {
  membership = new Membership();
});

const at = (offset: number): Message => ({ channel: "lobby", cmd: "chat", param: null, offset });
const live: Message = { channel: "lobby", cmd: "online-update", param: null };
const offsets = (messages: Message[]) => messages.map(({ offset }) => offset);

function joined(epoch = "e1", offset = 10, recovered = false) {
  membership.begin();
  return membership.settle({ epoch, offset, recovered });
}

test("messages without an offset pass, joined or joining", () => {
  expect(membership.accept(live)).toEqual([live]);
  membership.begin();
  expect(membership.accept(live)).toEqual([live]);
});

test("a first join is no gap and begins where the channel is", () => {
  expect(joined()).toEqual({ gap: null, messages: [] });
  expect(membership.position).toEqual({ epoch: "e1", offset: 10 });
});

test("a copy is not delivered again", () => {
  joined();
  expect(offsets(membership.accept(at(11)))).toEqual([11]);
  expect(membership.accept(at(11))).toEqual([]);
  expect(membership.accept(at(5))).toEqual([]);
  expect(membership.duplicates).toBe(2);
  expect(membership.position).toEqual({ epoch: "e1", offset: 11 });
});

test("without a join nothing is held back or taken for a copy", () => {
  expect(offsets(membership.accept(at(3)))).toEqual([3]);
  expect(offsets(membership.accept(at(3)))).toEqual([3]);
});

describe("coming back", () => {
  test("resent and live messages are delivered once, in order, when the node has answered", () => {
    joined();
    membership.begin();
    expect([13, 11, 12, 13, 14, 9].flatMap((offset) => membership.accept(at(offset)))).toEqual([]);
    const { gap, messages } = membership.settle({ epoch: "e1", offset: 13, recovered: true });
    expect(gap).toBeNull();
    expect(offsets(messages)).toEqual([11, 12, 13, 14]);
    expect(membership.position).toEqual({ epoch: "e1", offset: 14 });
    expect(membership.duplicates).toBe(2);
  });

  test("what could not be recovered is a gap", () => {
    joined();
    membership.begin();
    membership.accept(at(50));
    const { gap, messages } = membership.settle({ epoch: "e1", offset: 49, recovered: false });
    expect(gap).toEqual({ since: { epoch: "e1", offset: 10 }, epoch: "e1" });
    expect(offsets(messages)).toEqual([50]);
    expect(membership.position).toEqual({ epoch: "e1", offset: 50 });
  });

  test("in a new epoch old offsets say nothing", () => {
    joined();
    membership.begin();
    membership.accept(at(2));
    const { gap, messages } = membership.settle({ epoch: "e2", offset: 1, recovered: false });
    expect(gap).toEqual({ since: { epoch: "e1", offset: 10 }, epoch: "e2" });
    expect(offsets(messages)).toEqual([2]);
    expect(membership.position).toEqual({ epoch: "e2", offset: 2 });
  });

  test.each([null, {}, { epoch: null, offset: null }])("%o says there is no history: a gap", (reply) => {
    membership.begin();
    expect(membership.settle(reply).gap).toBeNull();
    membership.begin();
    expect(membership.settle(reply).gap).toEqual({ since: null, epoch: null });
    expect(membership.position).toBeNull();
  });

  test("after leaving it is a first join again", () => {
    joined();
    membership.leave();
    expect(joined("e1", 30).gap).toBeNull();
  });
});

describe("a join that comes to nothing", () => {
  test("lets go of what it held back when nothing would bring it again", () => {
    membership.begin();
    membership.accept(at(4));
    expect(offsets(membership.abandon())).toEqual([4]);
    expect(offsets(membership.accept(at(5)))).toEqual([5]);
  });

  test("drops it when the next one resumes", () => {
    joined();
    membership.begin();
    membership.accept(at(11));
    expect(membership.begin()).toEqual([]);
    expect(membership.position).toEqual({ epoch: "e1", offset: 10 });
  });
});

describe("a gap that the node announces", () => {
  test("moves to the new epoch", () => {
    joined();
    const since = { epoch: "e1", offset: 9 };
    expect(membership.interrupt({ epoch: "e2", since })).toEqual({ epoch: "e2", since });
    expect(offsets(membership.accept(at(1)))).toEqual([1]);
    expect(membership.position).toEqual({ epoch: "e2", offset: 1 });
  });

  test("without an epoch changes nothing else", () => {
    joined();
    expect(membership.interrupt(null)).toEqual({ epoch: null, since: { epoch: "e1", offset: 10 } });
    expect(membership.accept(at(10))).toEqual([]);
    expect(offsets(membership.accept(at(11)))).toEqual([11]);
  });
});
