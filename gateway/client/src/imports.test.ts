// The shape of the client: whoever reads a module has read, by then, all that it is made of.
import { readdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const here = dirname(fileURLToPath(import.meta.url));
const modules = readdirSync(here)
  .filter((name) => /\.tsx?$/.test(name) && !name.includes(".test."))
  .map((name) => name.replace(/\.tsx?$/, ""));

/** What our own modules import of each other, types included. */
const imports = new Map(
  modules.map((name) => {
    const text = readFileSync(`${here}/${name}.ts`, "utf8");
    return [
      name,
      [...text.matchAll(/(?:from|import\(?) *"\.\/([\w-]+)"/g)].map(([, target]) => target ?? ""),
    ];
  }),
);

/** Take away what imports nothing that is left, again and again: what stays is a circle, or imports one. */
function circles(graph: Map<string, string[]>): string[] {
  const left = new Map(graph);
  const isFree = (name: string) => !left.get(name)?.some((target) => left.has(target));
  for (let free = [...left.keys()]; free.length; ) {
    free = [...left.keys()].filter(isFree);
    for (const name of free) left.delete(name);
  }
  return [...left.keys()];
}

describe("modules", () => {
  test("import no circle, not of types either", () => {
    expect(circles(imports)).toEqual([]);
  });

  test("exist, all of those that are imported", () => {
    expect([...imports.values()].flat().filter((name) => !modules.includes(name))).toEqual([]);
    expect(imports.get("index")).toContain("client");
  });

  test("are found out where they form a circle", () => {
    const graph = { a: ["b"], b: ["c"], c: ["b", "d"], d: [], e: ["d"] };
    expect(circles(new Map(Object.entries(graph)))).toEqual(["a", "b", "c"]);
  });

  test("leave what tests need to tests", () => {
    const forTests = ["fakes", "tables"];
    const wrong = [...imports].filter(([, targets]) => targets.some((name) => forTests.includes(name)));
    expect(wrong.map(([name]) => name)).toEqual([]);
  });
});
