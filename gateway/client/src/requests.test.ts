import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Requests } from "./requests";

let requests: Requests;
const cancel = vi.fn();

beforeEach(() => {
  requests = new Requests();
  cancel.mockClear();
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

const answer = (id: number, param: unknown = null, cmd = "$reply") =>
  requests.settle({ channel: "", cmd, param, id });

function open(options: { timeout?: number; signal?: AbortSignal } = {}) {
  let id = 0;
  const promise = requests.open(
    { timeout: 1000, ...options },
    (given) => {
      id = given;
      requests.sent(given);
    },
    cancel,
  );
  return { id, promise };
}

test("each request gets its own answer, in any order", async () => {
  const first = open();
  const second = open();
  answer(second.id, "two");
  answer(first.id, "one");
  expect(await first.promise).toBe("one");
  expect(await second.promise).toBe("two");
  expect(requests.size).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});

test("an error answer rejects with what the server said", async () => {
  const { id, promise } = open();
  answer(id, { code: "rate-limited", message: "slow down", retry_after: 1.5, field: "text" }, "$error");
  await expect(promise).rejects.toMatchObject({
    name: "GatewayError",
    code: "rate-limited",
    message: "slow down",
    retryAfter: 1500,
    field: "text",
  });
});

test("no answer in time rejects with timeout, and a late one is nobody's", async () => {
  const { id, promise } = open({ timeout: 50 });
  const rejected = expect(promise).rejects.toMatchObject({ code: "timeout" });
  await vi.advanceTimersByTimeAsync(50);
  await rejected;
  expect(cancel).toHaveBeenCalledWith(id);
  expect(answer(id)).toBe(false);
});

test("an abort rejects and stops waiting", async () => {
  const controller = new AbortController();
  const { id, promise } = open({ signal: controller.signal });
  controller.abort();
  await expect(promise).rejects.toMatchObject({ code: "aborted" });
  expect(cancel).toHaveBeenCalledWith(id);
  expect(vi.getTimerCount()).toBe(0);
});

test("what is aborted beforehand is never sent", async () => {
  const start = vi.fn();
  const promise = requests.open({ timeout: 1000, signal: AbortSignal.abort() }, start, cancel);
  await expect(promise).rejects.toMatchObject({ code: "aborted" });
  expect(start).not.toHaveBeenCalled();
});

test("a lost connection rejects what was sent and keeps what was not", async () => {
  const sent = open();
  let id = 0;
  const unsent = requests.open(
    { timeout: 1000 },
    (given) => {
      id = given;
    },
    cancel,
  );
  requests.lost();
  await expect(sent.promise).rejects.toMatchObject({ code: "closed" });
  requests.sent(id);
  answer(id, "later");
  expect(await unsent).toBe("later");
});

test("what cannot be encoded rejects instead of throwing", async () => {
  const promise = requests.open(
    { timeout: 1000 },
    () => {
      throw new TypeError("circular");
    },
    cancel,
  );
  await expect(promise).rejects.toThrow("circular");
  expect(requests.size).toBe(0);
});
