import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FakeSocket, fakeBrowser } from "./fakes";
import type { Message } from "./message";
import { Socket } from "./socket";

const onOpen = vi.fn();
const onMessage = vi.fn<(message: Message) => void>();
const onError = vi.fn<(source: string, message: string) => void>();
let socket: Socket;

beforeEach(() => {
  fakeBrowser();
  vi.resetAllMocks();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  socket = new Socket(false, onOpen, onMessage, onError, "/connect?ch=lobby");
});
afterEach(() => {
  socket.disconnect();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test("it connects at once, without a subprotocol", () => {
  expect(FakeSocket.last.url).toBe("wss://example.test/connect?ch=lobby");
  expect(FakeSocket.last.protocols).toEqual([]);
  expect(socket.connected).toBe(false);
  FakeSocket.last.open();
  expect(socket.connected).toBe(true);
  expect(onOpen).toHaveBeenCalledOnce();
});

test("without a URL it goes to /connect", () => {
  expect(new Socket(false, onOpen, onMessage, onError).url).toBe("wss://example.test/connect");
});

test("messages arrive as objects", () => {
  FakeSocket.last.open();
  FakeSocket.last.receive({ channel: "lobby", cmd: "chat", param: { text: "hi" } });
  expect(onMessage).toHaveBeenCalledExactlyOnceWith({ channel: "lobby", cmd: "chat", param: { text: "hi" } });
});

test("what is sent early goes out in order, before onOpen", () => {
  onOpen.mockImplementation(() => socket.send({ channel: "lobby", cmd: "third" }));
  socket.send({ channel: "lobby", cmd: "first", param: { a: 1 } });
  socket.send({ channel: "lobby", cmd: "second" });
  FakeSocket.last.open();
  expect(FakeSocket.last.sent.map(({ cmd }) => cmd)).toEqual(["first", "second", "third"]);
});

test("a hundred messages wait; the oldest give way, and it says so", () => {
  for (let i = 0; i < 103; i++) socket.send({ channel: "lobby", cmd: `m${i}` });
  FakeSocket.last.open();
  expect(FakeSocket.last.sent).toHaveLength(100);
  expect(FakeSocket.last.sent[0]?.cmd).toBe("m3");
  expect(onError).toHaveBeenCalledTimes(3);
  expect(onError).toHaveBeenCalledWith("socket", "dropped a waiting m0");
});

test("it reconnects by itself, reports the loss, and opens again", () => {
  FakeSocket.last.open();
  FakeSocket.last.end(1006);
  expect(socket.connected).toBe(false);
  expect(onError).toHaveBeenCalledWith("socket", "connection lost: 1006");
  socket.send({ channel: "lobby", cmd: "waiting" });
  vi.advanceTimersByTime(250);
  FakeSocket.last.open();
  expect(FakeSocket.last.sent).toEqual([{ channel: "lobby", cmd: "waiting" }]);
  expect(onOpen).toHaveBeenCalledTimes(2);
});

test("close-connection ends it for good", () => {
  FakeSocket.last.open();
  FakeSocket.last.receive({ cmd: "close-connection" });
  expect(socket.closed).toBe(true);
  expect(FakeSocket.last.readyState).toBe(2);
  FakeSocket.last.end(1000);
  vi.advanceTimersByTime(60_000);
  expect(FakeSocket.all).toHaveLength(1);
  expect(onMessage).not.toHaveBeenCalled();
});

test("disconnect() ends it for good", () => {
  FakeSocket.last.open();
  socket.disconnect();
  vi.advanceTimersByTime(60_000);
  expect(FakeSocket.all).toHaveLength(1);
  expect(onError).not.toHaveBeenCalled();
});

test("a frame that is no message is an error, a callback that throws is none of ours", () => {
  const reported = vi.fn();
  vi.stubGlobal("reportError", reported);
  FakeSocket.last.open();
  FakeSocket.last.receive("nonsense");
  expect(onError).toHaveBeenCalledWith("socket", "received what is no message");
  onMessage.mockImplementationOnce(() => {
    throw new Error("mine");
  });
  FakeSocket.last.receive({ cmd: "a" });
  FakeSocket.last.receive({ cmd: "b" });
  expect(onMessage).toHaveBeenCalledTimes(2);
  expect(reported).toHaveBeenCalledOnce();
});

test("debug tells the console", () => {
  const debug = vi.spyOn(console, "debug").mockImplementation(() => {});
  const loud = new Socket(true, onOpen, onMessage, onError);
  FakeSocket.last.open();
  loud.send({ channel: "lobby", cmd: "chat" });
  expect(debug).toHaveBeenCalledWith("[gateway]", "send", { channel: "lobby", cmd: "chat" });
  loud.disconnect();
});
