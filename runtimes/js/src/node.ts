/** Bundles in Node, by onnxruntime-node. */
import { readFile } from "node:fs/promises";
import { join, sep } from "node:path";
import { fileURLToPath } from "node:url";

import * as ort from "onnxruntime-node";

import { Bundle, type OpenBundleOptions } from "./bundle.js";
import { OrtEngine, type Engine } from "./engine.js";
import { BundleError } from "./errors.js";
import { Generator, type OpenGeneratorOptions } from "./generator.js";
import { parsePack, type Pack } from "./packs.js";
import { UrlSource, type Bytes, type ReadOptions, type Source } from "./source.js";

// onnxruntime reports its use to its maker since 1.29, unless this is set before its first session
process.env["ORT_DISABLE_TELEMETRY"] ??= "1";

export * from "./index.js";

/** A bundle folder. */
export class FolderSource implements Source {
  readonly where: string;

  constructor(private readonly folder: string) {
    this.where = folder.endsWith(sep) ? folder : folder + sep;
  }

  async read(path: string, { signal, onBytes }: ReadOptions = {}): Promise<Bytes> {
    const bytes = await readWhole(join(this.folder, path), "copy the whole bundle or export it again", signal);
    onBytes?.(bytes.length);
    return bytes;
  }
}

/** onnxruntime on the CPU; `threads` 0 lets it choose. */
export function nodeEngine({ threads = 0 }: { threads?: number } = {}): Engine {
  const options = { executionProviders: ["cpu"], intraOpNumThreads: threads };
  const name = `onnxruntime-node ${ort.env.versions.node ?? ort.env.versions.common} on CPU`;
  return new OrtEngine(name, threads || null, ort, options);
}

/** Open a bundle by its folder or its URL, `file:` or of a server. */
export async function openGenerator(
  folderOrUrl: string | URL,
  { engine = nodeEngine(), ...options }: { engine?: Engine } & OpenBundleOptions & OpenGeneratorOptions = {},
): Promise<Generator> {
  return Generator.open(await Bundle.open(chooseSource(folderOrUrl), options), engine, options);
}

/** Read a pack file, by its path or its `file:` URL. */
export async function readPack(file: string | URL): Promise<Pack> {
  const path = findPath(file);
  if (path === undefined) {
    throw new BundleError(`${String(file)} is no file`, "download the pack, and give its path or parsePack its bytes");
  }
  return parsePack(await readWhole(path, "download it, or make one with kind-export --packs"), path);
}

function chooseSource(folderOrUrl: string | URL): Source {
  const folder = findPath(folderOrUrl);
  return folder === undefined ? new UrlSource(folderOrUrl) : new FolderSource(folder);
}

/** The path that a path or a `file:` URL names; undefined for the URL of a server. */
function findPath(place: string | URL): string | undefined {
  const text = String(place);
  if (!/^file:/i.test(text)) {
    return typeof place !== "string" || /^https?:/i.test(text) ? undefined : text;
  }
  try {
    return fileURLToPath(new URL(text));
  } catch (error) {
    throw new BundleError(`${text} names no file here: ${(error as Error).message}`, "give the path of the folder", { cause: error });
  }
}

async function readWhole(file: string, hint: string, signal?: AbortSignal): Promise<Bytes> {
  try {
    return new Uint8Array(await readFile(file, signal ? { signal } : {}));
  } catch (error) {
    signal?.throwIfAborted();
    throw new BundleError(`cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`, hint, { cause: error });
  }
}
