import type { Message } from "./message";

/** A place in a channel's history. */
export interface Position {
  epoch: string;
  offset: number;
}

/** Messages that may have been missed in a channel. */
export interface Gap {
  /** The last message that was delivered, where the channel keeps a history. */
  since: Position | null;
  /** The epoch in which the history goes on; null where there is none. */
  epoch: string | null;
}

/** What a node answers to `$join`: all null, or empty, where the channel keeps no history. */
export interface Joined {
  epoch?: string | null;
  offset?: number | null;
  recovered?: boolean;
}

/** Which messages of a channel are new: each is delivered once, in the order of the history. */
export class Progress {
  /** Whether we were ever in, so that coming back without a position is a gap. */
  #known = false;
  #position: Position | null = null;
  /** What arrived while a join is under way: it may be older, newer or a copy of what the node resends. */
  #held: Message[] | null = null;
  duplicates = 0;

  get position(): Position | null {
    return this.#position;
  }

  /** Begin a join; return what an earlier one that came to nothing had held back. */
  begin(): Message[] {
    const messages = this.abandon();
    this.#held = [];
    return messages;
  }

  /** Take a message in; return what is to be delivered now. */
  accept(message: Message): Message[] {
    if (message.offset === undefined) return [message];
    if (this.#held) {
      this.#held.push(message);
      return [];
    }
    return this.#advance([message]);
  }

  /** The node has let us in: the gap, if there is one, and what was held back, to be delivered after it. */
  settle(joined: Joined | null): { gap: Gap | null; messages: Message[] } {
    const { epoch = null, offset = 0, recovered = false } = joined ?? {};
    const since = this.#position;
    const gap = this.#known && !(recovered && since) ? { since, epoch } : null;
    this.#known = true;
    if (epoch === null || since?.epoch !== epoch) this.#position = null;
    const messages = this.#release();
    const reached = Math.max(offset ?? 0, this.#position?.offset ?? 0, messages.at(-1)?.offset ?? 0);
    this.#position = epoch === null ? null : { epoch, offset: reached };
    return { gap, messages };
  }

  /**
   * The join came to nothing. With a position the next one brings what was held back again;
   * without one nothing would, so return it.
   */
  abandon(): Message[] {
    const messages = this.#position ? [] : this.#release();
    this.#held = null;
    return messages;
  }

  /** Forget everything: coming back later is a first join. */
  leave(): Message[] {
    const messages = this.abandon();
    this.#position = null;
    this.#known = false;
    return messages;
  }

  /** The node says that messages were lost. */
  interrupt(param: Partial<Gap> | null): Gap {
    const gap = { since: param?.since ?? this.#position, epoch: param?.epoch ?? null };
    if (gap.epoch !== null) this.#position = { epoch: gap.epoch, offset: 0 };
    return gap;
  }

  #release(): Message[] {
    const held = this.#held ?? [];
    this.#held = null;
    return this.#advance(held.sort((a, b) => (a.offset ?? 0) - (b.offset ?? 0)));
  }

  /** Pass on what lies behind the position and move it there. */
  #advance(messages: Message[]): Message[] {
    let last = this.#position?.offset ?? -1;
    const fresh = messages.filter(({ offset = 0 }) => {
      const isNew = offset > last;
      if (isNew) last = offset;
      return isNew;
    });
    this.duplicates += messages.length - fresh.length;
    if (this.#position) this.#position = { ...this.#position, offset: last };
    return fresh;
  }
}
