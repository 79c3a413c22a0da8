import { expectTypeOf, test } from "vitest";
import type { Client } from "./client";
import type { Message } from "./message";

interface Chat {
  commands: {
    chat: { param: { text: string }; reply: { id: number } };
    ping: { param: null; reply: null };
    "who-am-i": { reply: string };
  };
  messages: { chat: { user: string; text: string }; pong: { timestamp: number } };
}

// These are checked by the compiler; the test below runs none of them.
function typed(client: Client<Chat>): void {
  const lobby = client.channel("lobby");
  lobby.send("chat", { text: "hi" });
  lobby.send("ping");
  lobby.send("ping", null);
  client.send("ping", null, { channel: "lobby" });
  expectTypeOf(lobby.request("chat", { text: "hi" })).resolves.toEqualTypeOf<{ id: number }>();
  expectTypeOf(client.request("who-am-i")).resolves.toEqualTypeOf<string>();
  lobby.on("chat", (param, message) => {
    expectTypeOf(param).toEqualTypeOf<{ user: string; text: string }>();
    expectTypeOf(message).toEqualTypeOf<Message<{ user: string; text: string }>>();
  });
  lobby.on("online-update", ({ userID, connected }) => {
    expectTypeOf(userID).toBeString();
    expectTypeOf(connected).toBeBoolean();
  });
  lobby.on("$gap", ({ since }) => expectTypeOf(since?.offset).toEqualTypeOf<number | undefined>());
  // @ts-expect-error the param is required
  lobby.send("chat");
  // @ts-expect-error and has a type
  lobby.send("chat", { text: 7 });
  // @ts-expect-error no such command
  lobby.send("shout", { text: "hi" });
  // @ts-expect-error the channel of a channel's request is given
  lobby.request("ping", null, { channel: "other" });
  // @ts-expect-error no such message
  lobby.on("shout", () => {});
}

function untyped(client: Client): void {
  client.send("anything");
  client.channel("lobby").send("anything", { at: ["all"] });
  client.channel("lobby").on("chat", ({ text }) => text.length);
  expectTypeOf(client.request("anything")).resolves.toBeAny();
}

test("a schema types commands, answers and messages", () => {
  expectTypeOf(typed).toBeFunction();
  expectTypeOf(untyped).toBeFunction();
});
