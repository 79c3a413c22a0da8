// What the demo chat keeps in the browser, and what it makes of what people type.

const ADJECTIVES = [
  "Bright",
  "Calm",
  "Clever",
  "Curious",
  "Gentle",
  "Lucky",
  "Merry",
  "Quick",
  "Quiet",
  "Sunny",
];
const ANIMALS = ["Badger", "Falcon", "Fox", "Heron", "Hedgehog", "Lynx", "Otter", "Owl", "Robin", "Seal"];

/** Storage may be forbidden, or hold what somebody else put there. */
export function recall(storage, key) {
  try {
    return JSON.parse(window[storage].getItem(`gateway-chat-${key}`));
  } catch {
    return null;
  }
}

export function remember(storage, key, value) {
  try {
    window[storage].setItem(`gateway-chat-${key}`, JSON.stringify(value));
  } catch {
    // Then it is forgotten with the page.
  }
}

/** The first letters of a text, none of them cut in half. */
const cut = (text, length) => [...text.trim()].slice(0, length).join("");

export const asName = (value) => (typeof value === "string" ? cut(value, 40) : "");

/** What the server takes as the name of a channel; white space is what people type by habit. */
export const asRoom = (value) =>
  cut(String(value), 50)
    .replace(/[\s\p{Cc}]+/gu, "-")
    .replace(/[{}*?[\]\\]/g, "");

const pick = (list) => list[Math.floor(Math.random() * list.length)];

/** For people who have not said who they are. */
export const someName = () => `${pick(ADJECTIVES)} ${pick(ANIMALS)}`;

/** Whether no other tab of this browser has the chat open; where the browser cannot tell, each is the first. */
export function isFirstTab() {
  if (!navigator.locks) return true;
  return new Promise((tell) => {
    const hold = (lock) => {
      tell(lock !== null);
      // Held for as long as the page lives.
      return lock && new Promise(() => {});
    };
    navigator.locks.request("gateway-chat", { ifAvailable: true }, hold).catch(() => tell(true));
  });
}
