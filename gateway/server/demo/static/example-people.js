// Whom the demo chat knows, and who is typing.

/** Names of people by user id, as far as they have said who they are. */
export class People {
  #names = new Map();
  /** Who is known as somebody else now, for as long as nothing is heard of them. */
  #replaced = new Set();

  nameOf(id) {
    return this.#names.get(id) ?? (id ? `Guest ${id.slice(-4)}` : "Somebody");
  }

  /** Somebody says whom they were: that one is not there any more, whatever is listed until a node's lease ends. */
  replace(former, user) {
    for (const id of former) this.#replaced.add(id);
    this.revive(user);
  }

  /** They are there after all: what others say of somebody counts less than a word of theirs. */
  revive(user) {
    this.#replaced.delete(user);
  }

  isReplaced(id) {
    return this.#replaced.has(id);
  }

  /** Take names in; tell whether any of them is new. */
  meet(newcomers) {
    let isNew = false;
    for (const [id, name] of Object.entries(newcomers ?? {})) {
      if (typeof name !== "string" || !name || this.#names.get(id) === name) continue;
      this.#names.set(id, name);
      isNew = true;
    }
    return isNew;
  }
}

/** Those who have typed lately; each is forgotten after `patience` milliseconds without another sign. */
export class Typists {
  #timers = new Map();
  #patience;
  #changed;

  constructor(patience, changed) {
    this.#patience = patience;
    this.#changed = changed;
  }

  get users() {
    return [...this.#timers.keys()];
  }

  add(user) {
    clearTimeout(this.#timers.get(user));
    const timer = setTimeout(() => this.delete(user), this.#patience);
    this.#timers.set(user, timer);
    this.#changed();
  }

  delete(user) {
    clearTimeout(this.#timers.get(user));
    if (this.#timers.delete(user)) this.#changed();
  }

  /** Forget all who are not among these. */
  keep(users) {
    for (const user of this.users) if (!users.includes(user)) this.delete(user);
  }

  clear() {
    this.keep([]);
  }
}
