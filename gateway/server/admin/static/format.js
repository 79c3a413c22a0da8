// Writes numbers and times for people.

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const whole = (value) => WHOLE.format(Math.round(value ?? 0));

/** At most four digits, so that nothing moves when it grows. */
export function short(value) {
  const number = value ?? 0;
  if (Math.abs(number) >= 10_000) return SHORT.format(number);
  return Math.abs(number) < 10 && !Number.isInteger(number) ? number.toFixed(1) : whole(number);
}

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let number = value ?? 0;
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${number < 10 && unit ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

/** A delay given in seconds, measured to the millisecond. */
export const delay = (value) => ((value ?? 0) < 0.001 ? "< 1 ms" : seconds(value));

/** A duration given in seconds, as short as it can be said. */
export function seconds(value) {
  const number = value ?? 0;
  if (number === 0) return "0 ms";
  if (number < 0.001) return `${Math.round(number * 1e6)} µs`;
  if (number < 0.01) return `${(number * 1000).toFixed(1)} ms`;
  if (number < 1) return `${Math.round(number * 1000)} ms`;
  return `${number.toFixed(1)} s`;
}

export const percent = (value) => `${Math.round(value ?? 0)}%`;

/** How long something has lasted, from milliseconds: `3 d 4 h`, `5 m 20 s`. */
export function lasted(milliseconds) {
  let rest = Math.max(0, Math.floor(milliseconds / 1000));
  const parts = [];
  for (const [name, size] of [
    ["d", 86400],
    ["h", 3600],
    ["m", 60],
    ["s", 1],
  ]) {
    const count = Math.floor(rest / size);
    rest %= size;
    if (count || (name === "s" && !parts.length)) parts.push(`${count} ${name}`);
  }
  return parts.slice(0, 2).join(" ");
}

export const clock = (at) => CLOCK.format(new Date(at));
export const day = (at) => DAY.format(new Date(at));

export const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;
