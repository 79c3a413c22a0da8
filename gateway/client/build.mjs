// Build the client: `node build.mjs FOLDER [--package] [--check]`. The same sources give the same bytes;
// --package adds what only the npm package has; --check writes nothing and fails when the folder holds anything else.
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
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

/** What the client may weigh on a page, gzipped: 7 KB. */
const MOST_BYTES = 7168;

/** Modules of the npm package beside the main one. */
const FURTHER = ["testing", "react"];

/** Members that only our own modules use; the build gives them short names, and fails when one becomes public. */
const INTERNAL = [
  ...["abandon", "accept", "address", "ask", "asleep", "awake", "begin", "canRenew", "changed", "delivered"],
  ...["drain", "emit", "end", "enter", "fail", "failed", "generation", "interrupt", "lost", "malformed"],
  ...[
    "opened",
    "promise",
    "ready",
    "receive",
    "reject",
    "remove",
    "reset",
    "running",
    "settle",
    "start",
    "stop",
    "transmit",
    "urgent",
  ],
  ...["welcomed"],
];

const BANNER = "/*! Gateway browser client, MIT */";

/** One module with all it imports; what a package brings is left to whoever bundles the application. */
async function bundle(entry, options = {}) {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: [`src/${entry}.ts`],
    bundle: true,
    minify: true,
    write: false,
    charset: "utf8",
    target: "es2022",
    format: "esm",
    packages: "external",
    banner: { js: BANNER },
    ...options,
  });
  return outputFiles[0].text;
}

/** The same as a script that defines the global `gateway`; esbuild's own wrapping is 200 bytes larger, gzipped. */
function asScript(module) {
  const end = module.lastIndexOf("export{");
  const exported = module.slice(end + "export{".length, module.lastIndexOf("}")).split(",");
  const members = exported.map((pair) => pair.split(" as ").reverse().join(":"));
  const body = module.slice(BANNER.length, end).trim();
  return `${BANNER}\nvar gateway=(()=>{"use strict";${body}return{${members}}})();\n`;
}

/** The declarations of everything, as the compiler writes them, while `use` reads them. */
async function withDeclarations(use) {
  const folder = mkdtempSync(join(tmpdir(), "gateway-types-"));
  try {
    const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
    const options = ["--declaration", "--emitDeclarationOnly", "--rootDir", "src", "--outDir", folder];
    execFileSync(process.execPath, [tsc, "--project", join(here, "tsconfig.build.json"), ...options]);
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The declarations of a further entry; what it takes from our other modules, the main one exports. */
function typesOf(folder, entry) {
  const text = readFileSync(join(folder, `${entry}.d.ts`), "utf8");
  return `// Built from gateway/client.\n${text.replace(/from "\.\/[\w-]+"/g, 'from "./gateway.js"')}`;
}

/** The public declarations and what they mention, as one file. */
function assemble(folder) {
  const read = (name) => readFileSync(join(folder, name), "utf8");
  const entries = ["index", ...FURTHER].map((entry) => `${entry}.d.ts`);
  const names = readdirSync(folder).filter((name) => !entries.includes(name));
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
  const shown = [...kept].map((name) => declared.get(name)).join("\n");
  for (const name of INTERNAL) {
    if (new RegExp(`^ +(readonly |get )?${name}\\??[:(<]`, "m").test(shown))
      throw new Error(`${name} is public`);
  }
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

/** What a page loads from a node. */
async function mainFiles(declarations) {
  const module = await bundle("index", { mangleProps: new RegExp(`^(${INTERNAL.join("|")})$`) });
  return {
    "gateway.js": asScript(module),
    "gateway.mjs": module,
    "gateway.d.ts": assemble(declarations),
  };
}

async function furtherFiles(declarations) {
  const files = {};
  for (const entry of FURTHER) {
    files[`${entry}.mjs`] = await bundle(entry);
    files[`${entry}.d.ts`] = typesOf(declarations, entry);
  }
  return files;
}

/** The names of the files that a folder does not hold as they should be. */
function stale(folder, files) {
  return Object.entries(files).flatMap(([name, text]) => {
    const path = join(folder, name);
    return existsSync(path) && readFileSync(path, "utf8") === text ? [] : [name];
  });
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { package: { type: "boolean" }, check: { type: "boolean" } },
});
const target = resolve(here, positionals[0] ?? "dist");
const files = await withDeclarations(async (declarations) => ({
  ...(await mainFiles(declarations)),
  ...(values.package ? await furtherFiles(declarations) : {}),
}));
for (const name of ["gateway.js", "gateway.mjs"]) {
  const size = gzipSync(files[name]).length;
  if (size > MOST_BYTES)
    throw new Error(`${name} has ${size} bytes gzipped, at most ${MOST_BYTES} are wanted`);
}
if (values.check) {
  const wrong = stale(target, files);
  for (const name of wrong) console.error(`${name} is not what its sources make: run npm run build`);
  process.exit(wrong.length ? 1 : 0);
}
mkdirSync(target, { recursive: true });
for (const [name, text] of Object.entries(files)) {
  writeFileSync(join(target, name), text);
  console.log(`${name}: ${text.length} bytes, ${gzipSync(text).length} gzipped`);
}
