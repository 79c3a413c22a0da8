// Bring the chart library of the admin pages: `node vendor.mjs FOLDER`. The same version gives the same bytes.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { transformSync } from "esbuild";

const here = import.meta.dirname;
const source = dirname(createRequire(import.meta.url).resolve("uplot/package.json"));
const target = resolve(here, process.argv[2] ?? "dist", "uplot");
const read = (...name) => readFileSync(join(source, ...name), "utf8");

const { version } = JSON.parse(read("package.json"));
const banner = `/*! uPlot ${version}, MIT, https://github.com/leeoniya/uPlot; see LICENSE. */`;
const { code } = transformSync(read("dist", "uPlot.esm.js"), {
  minify: true,
  target: "es2022",
  charset: "utf8",
});

mkdirSync(target, { recursive: true });
writeFileSync(
  join(target, "uplot.mjs"),
  `${banner}\n${code.replace(/\/\*\*?!?\s*\* Copyright[\s\S]*?\*\/\s*/g, "")}`,
);
writeFileSync(join(target, "uplot.css"), `${banner}\n${read("dist", "uPlot.min.css").trim()}\n`);
writeFileSync(join(target, "LICENSE"), read("LICENSE"));
