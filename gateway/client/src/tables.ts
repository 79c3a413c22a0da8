import { readFileSync } from "node:fs";

/** Read a table of cases that the tests of the clients in both languages run, from `tests/tables`. */
export function table<Row>(name: string): Row[] {
  return JSON.parse(readFileSync(new URL(`../../../tests/tables/${name}.json`, import.meta.url), "utf8"));
}
