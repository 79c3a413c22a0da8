import { expect, test } from "vitest";
import type { Message } from "./message";
import { type Gap, type Joined, type Position, Progress } from "./progress";
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

function take(progress: Progress, step: Step): { gap: Gap | null; messages: Message[] } {
  switch (step.do) {
    case "accept":
      return { gap: null, messages: progress.accept(message(step.with)) };
    case "settle":
      return progress.settle(step.with);
    case "interrupt":
      return { gap: progress.interrupt(step.with), messages: [] };
    default:
      return { gap: null, messages: progress[step.do]() };
  }
}

test.each(CASES)("$case", ({ steps, duplicates = 0 }) => {
  const progress = new Progress();
  for (const step of steps) {
    const { gap, messages } = take(progress, step);
    expect(messages.map(({ offset = null }) => offset)).toEqual(step.tells ?? []);
    expect(gap).toEqual(step.gap ?? null);
    expect(progress.position).toEqual(step.at);
  }
  expect(progress.duplicates).toBe(duplicates);
});
