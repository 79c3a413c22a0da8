// Build the client: `node build.mjs FOLDER [--check]`. The same sources give the same bytes;
// --check writes nothing and fails when the folder holds anything else.
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

async function bundle(format) {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: ["src/index.ts"],
    bundle: true,
    minify: true,
    write: false,
    charset: "utf8",
    target: "es2022",
    format,
    ...(format === "iife" ? { globalName: "gateway" } : {}),
    banner: { js: "/*! Gateway browser client, MIT. Built from gateway/client. */" },
  });
  return outputFiles[0].text;
}

/** The public declarations and what they mention, as one file. */
function types() {
  const folder = mkdtempSync(join(tmpdir(), "gateway-types-"));
  try {
    const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
    const options = ["--declaration", "--emitDeclarationOnly", "--rootDir", "src", "--outDir", folder];
    execFileSync(process.execPath, [tsc, "--project", join(here, "tsconfig.build.json"), ...options]);
    return assemble(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function assemble(folder) {
  const read = (name) => readFileSync(join(folder, name), "utf8");
  const names = readdirSync(folder).filter((name) => name !== "index.d.ts");
  const declared = new Map(names.sort().flatMap((name) => declarations(read(name))));
  const exported = [...read("index.d.ts").matchAll(/^export (type )?\{([^}]*)\}/gm)].flatMap(
    ([, type, list]) => list.split(",").flatMap((name) => (name.trim() ? `${type ?? ""}${name.trim()}` : [])),
  );
  const kept = new Set();
  const keep = (name) => {
    if (kept.has(name) || !declared.has(name)) return;
    kept.add(name);
    for (const [word] of declared
      .get(name)
      .replace(/\/\*.*?\*\//gs, "")
      .matchAll(/\w+/g))
      keep(word);
  };
  for (const name of exported) keep(name.replace("type ", ""));
  return [
    "// Built from gateway/client.\n",
    ...[...declared].filter(([name]) => kept.has(name)).map(([, text]) => text),
    `export { ${exported.sort().join(", ")} };`,
    "/** The global that gateway.js defines. */",
    "export as namespace gateway;\n",
  ].join("\n");
}

/** The top-level declarations of a file: name and text, the comment above included. */
function declarations(text) {
  const blocks = [];
  let comment = false;
  for (const line of text.split("\n")) {
    const starts = /^(\/\*\*|export |declare |interface |type |import )/.test(line);
    if (starts && !comment) blocks.push("");
    if (starts) comment = line.startsWith("/**");
    blocks.push(`${blocks.pop() ?? ""}${line.replace(/^export /, "")}\n`);
  }
  return blocks.flatMap((block) => {
    const name = /^(?:declare )?(?:class|interface|type) (\w+)/m.exec(block)?.[1];
    return name ? [[name, block.trimEnd()]] : [];
  });
}

const [folder = "dist", flag] = process.argv.slice(2);
const target = resolve(here, folder);
const files = {
  "gateway.js": await bundle("iife"),
  "gateway.mjs": await bundle("esm"),
  "gateway.d.ts": types(),
};
if (flag === "--check") {
  const stale = Object.entries(files).filter(([name, text]) => {
    const path = join(target, name);
    return !existsSync(path) || readFileSync(path, "utf8") !== text;
  });
  for (const [name] of stale) console.error(`${name} is not what its sources make: run npm run build`);
  process.exit(stale.length ? 1 : 0);
}
mkdirSync(target, { recursive: true });
for (const [name, text] of Object.entries(files)) {
  writeFileSync(join(target, name), text);
  console.log(`${name}: ${text.length} bytes, ${gzipSync(text).length} gzipped`);
}
