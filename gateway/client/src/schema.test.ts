import { expectTypeOf, test } from "vitest";
import type { Client } from "./client";
import type { Message } from "./message";
import type { Gap } from "./progress";
import type { Presence } from "./roster";
import type { Schema } from "./schema";

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

async function read(client: Client<Chat>): Promise<void> {
  const lobby = client.channel("lobby");
  for await (const { param } of lobby.messages("chat")) {
    expectTypeOf(param).toEqualTypeOf<{ user: string; text: string }>();
  }
  for await (const message of lobby.messages("$gap")) expectTypeOf(message).toEqualTypeOf<Message<Gap>>();
  for await (const message of lobby.messages()) expectTypeOf(message).toEqualTypeOf<Message>();
  for await (const { param } of lobby.messages("online-count", { limit: 1 })) {
    expectTypeOf(param.count).toBeNumber();
  }
  lobby.watchPresence((presence) => expectTypeOf(presence).toEqualTypeOf<Presence>());
  // @ts-expect-error no such message
  lobby.messages("shout");
}

/** What `gateway schema --typescript` writes: optional, nullable and nested params, and answers of all kinds. */
interface Written extends Schema {
  commands: {
    move: { param: { x: number; y: number; note?: string }; reply: { moved: boolean } | null };
    find: { param: { tags: string[] } | null; reply: { id: string }[] };
    stop: { param: null; reply: null };
    any: { param: unknown; reply: unknown };
  };
  messages: { moved: { x: number; y: number }; stopped: null };
}

async function written(client: Client<Written>): Promise<void> {
  expectTypeOf(await client.request("move", { x: 1, y: 2 })).toEqualTypeOf<{ moved: boolean } | null>();
  expectTypeOf(await client.request("find")).toEqualTypeOf<{ id: string }[]>();
  expectTypeOf(await client.request("find", { tags: [] }, { timeout: 1 })).toEqualTypeOf<{ id: string }[]>();
  expectTypeOf(await client.request("stop")).toBeNull();
  expectTypeOf(await client.request("any", 7)).toBeUnknown();
  client.channel("a").on("stopped", (param) => expectTypeOf(param).toBeNull());
  // @ts-expect-error a field is missing
  client.request("move", { x: 1 });
  // @ts-expect-error a field of another type
  client.request("move", { x: 1, y: 2, note: 3 });
  // @ts-expect-error null is not what it takes
  client.request("move", null);
  // @ts-expect-error no such option
  client.request("stop", null, { patience: 3 });
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
  expectTypeOf(read).toBeFunction();
  expectTypeOf(written).toBeFunction();
});
