import { expect, test } from "vitest";
import { type Gap, type Joined, Membership, type Position } from "./membership";
import type { Message } from "./message";
import { table } from "./tables";

/** What happens, what is told at once, the gap that is told before it, and the position afterwards. */
type Step = { tells?: (number | null)[]; gap?: Gap; at: Position | null } & (
  | { do: "begin" | "abandon" | "leave" }
  | { do: "accept"; with: number | null }
  | { do: "settle"; with: Joined | null }
  | { do: "interrupt"; with: Partial<Gap> | null }
);

const CASES = table<{ case: string; steps: Step[]; duplicates?: number }>("progress");

const message = (offset: number | null): Message => ({
  channel: "lobby",
  cmd: "chat",
  param: null,
  ...(offset === null ? {} : { offset }),
});

function take(membership: Membership, step: Step): { gap: Gap | null; messages: Message[] } {
  switch (step.do) {
    case "accept":
      return { gap: null, messages: membership.accept(message(step.with)) };
    case "settle":
      return membership.settle(step.with);
    case "interrupt":
      return { gap: membership.interrupt(step.with), messages: [] };
    default:
      return { gap: null, messages: membership[step.do]() };
  }
}

test.each(CASES)("$case", ({ steps, duplicates = 0 }) => {
  const membership = new Membership();
  for (const step of steps) {
    const { gap, messages } = take(membership, step);
    expect(messages.map(({ offset = null }) => offset)).toEqual(step.tells ?? []);
    expect(gap).toEqual(step.gap ?? null);
    expect(membership.position).toEqual(step.at);
  }
  expect(membership.duplicates).toBe(duplicates);
});
