// Whom the demo chat knows, and who is typing.

/** Names of people by user id, as far as they have said who they are. */
export class People {
  #names = new Map();

  nameOf(id) {
    return this.#names.get(id) ?? (id ? `Guest ${id.slice(-4)}` : "Somebody");
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
