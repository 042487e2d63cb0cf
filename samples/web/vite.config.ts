import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { defineConfig, type Plugin } from "vite";

const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const LAZY = /asyncify/; // only read where WebGPU is asked for
// onnxruntime-web without its loader inside: its threads run the loader's own file, not the page's worker
const CONDITIONS = ["onnxruntime-web-use-extern-wasm", "module", "browser", "import", "default"];

/** Tells the service worker which files the page is made of. */
function listShell(): Plugin {
  return {
    name: "list-shell",
    enforce: "post",
    generateBundle(_, bundle) {
      const built = Object.keys(bundle).filter((name) => name !== "sw.js" && name !== "index.html" && !LAZY.test(name));
      const copied = readdirSync("public");
      const hash = createHash("sha256").update(readFileSync("index.html"));
      [...built].sort().forEach((name) => hash.update(name));
      [...copied].sort().forEach((name) => hash.update(name).update(readFileSync(`public/${name}`)));
      const worker = bundle["sw.js"];
      if (worker?.type !== "chunk") {
        throw new Error("there is no sw.js to tell");
      }
      const shell = ["./", ...[...built, ...copied].sort()];
      worker.code = worker.code
        .replaceAll("__SHELL_HASH__", JSON.stringify(hash.digest("hex").slice(0, 16)))
        .replaceAll("__SHELL__", JSON.stringify(shell));
    },
  };
}

/** In the Python package large files lie compressed, as `kind-run serve` gives them out, and those of WebGPU do not. */
function compressLarge(): Plugin {
  let folder = "";
  return {
    name: "compress-large",
    enforce: "post",
    generateBundle(_, bundle) {
      // emitted when the import was read, before it was found to be dead code
      Object.keys(bundle).filter((name) => LAZY.test(name)).forEach((name) => delete bundle[name]);
    },
    configResolved: (config) => void (folder = config.build.outDir),
    closeBundle() {
      for (const file of readdirSync(folder, { recursive: true, encoding: "utf-8" })) {
        if (file.endsWith(".wasm")) {
          writeFileSync(join(folder, `${file}.gz`), gzipSync(readFileSync(join(folder, file)), { level: 9 }));
          rmSync(join(folder, file));
        }
      }
    },
  };
}

export default defineConfig(({ mode }) => ({
  base: "./",
  resolve: { conditions: CONDITIONS },
  worker: { format: "es" },
  server: { headers: ISOLATION },
  preview: { headers: ISOLATION },
  plugins: [listShell(), ...(mode === "package" ? [compressLarge()] : [])],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    rollupOptions: {
      input: { index: "index.html", sw: "src/sw.ts" },
      output: { entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
    },
  },
}));
