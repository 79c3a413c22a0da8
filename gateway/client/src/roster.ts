import { GatewayError, pauseAfter } from "./errors";
import type { ChannelMessages } from "./schema";
import { Timer } from "./timer";

/** What `$presence` answers; `users` is missing where there are too many. */
export interface Presence {
  count: number;
  users?: string[];
}

/** The channel, as far as a roster asks it. */
interface Watched {
  presence(): Promise<Presence>;
  on<C extends keyof ChannelMessages>(cmd: C, listener: (param: ChannelMessages[C]) => void): () => void;
}

/**
 * Keep track of who is in a channel: the answer to a question, and every change since it was asked.
 *
 * What is known stays until the next answer is there, so a reconnect looks like what it is to the others: nothing.
 */
export class Roster {
  #users: Set<string> | undefined;
  /** What changed since the question that is under way: it may be newer than the answer. */
  #changes: Map<string, boolean> | undefined;
  readonly #retry = new Timer();
  readonly #channel: Watched;
  readonly #tell: (presence: Presence) => void;
  readonly #off: (() => void)[];

  constructor(channel: Watched, tell: (presence: Presence) => void) {
    this.#channel = channel;
    this.#tell = tell;
    this.#off = [
      channel.on("online-update", ({ userID, connected }) => {
        this.#changes?.set(userID, connected);
        if (this.#users) this.#change(new Map([[userID, connected]]));
        // The crowd that was only counted has become small enough to be named.
        else if (!this.#changes) void this.ask();
      }),
      channel.on("online-count", ({ count }) => {
        this.#users = undefined;
        tell({ count });
      }),
    ];
  }

  async ask(): Promise<void> {
    const changes = new Map<string, boolean>();
    this.#changes = changes;
    this.#retry.stop();
    const presence = await this.#channel.presence().catch((error: GatewayError) => error);
    if (changes !== this.#changes) return;
    this.#changes = undefined;
    if (presence instanceof GatewayError) {
      const pause = pauseAfter(presence);
      if (pause) this.#retry.start(pause, () => this.ask());
      return;
    }
    this.#users = presence.users && new Set(presence.users);
    if (this.#users) this.#change(changes);
    else this.#tell(presence);
  }

  end(): void {
    this.#changes = undefined;
    this.#retry.stop();
    for (const off of this.#off) off();
  }

  #change(changes: Map<string, boolean>): void {
    const users = this.#users as Set<string>;
    for (const [user, connected] of changes) users[connected ? "add" : "delete"](user);
    this.#tell({ count: users.size, users: [...users] });
  }
}
