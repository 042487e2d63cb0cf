/** Bundles in Node, by onnxruntime-node. */
import { readFile } from "node:fs/promises";
import { join, sep } from "node:path";

import * as ort from "onnxruntime-node";

import { Bundle, type OpenBundleOptions } from "./bundle.js";
import { OrtEngine, type Engine } from "./engine.js";
import { BundleError } from "./errors.js";
import { Generator, type OpenGeneratorOptions } from "./generator.js";
import { parsePack, type Pack } from "./packs.js";
import { UrlSource, type Bytes, type ReadOptions, type Source } from "./source.js";

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

/** Open a bundle by its folder or its URL. */
export async function openGenerator(
  folderOrUrl: string | URL,
  { engine = nodeEngine(), ...options }: { engine?: Engine } & OpenBundleOptions & OpenGeneratorOptions = {},
): Promise<Generator> {
  return Generator.open(await Bundle.open(chooseSource(folderOrUrl), options), engine, options);
}

/** Read a pack file. */
export async function readPack(file: string): Promise<Pack> {
  return parsePack(await readWhole(file, "download it, or make one with kind-export --packs"), file);
}

function chooseSource(folderOrUrl: string | URL): Source {
  const isUrl = typeof folderOrUrl !== "string" || /^https?:/.test(folderOrUrl);
  return isUrl ? new UrlSource(folderOrUrl) : new FolderSource(folderOrUrl);
}

async function readWhole(file: string, hint: string, signal?: AbortSignal): Promise<Bytes> {
  try {
    return new Uint8Array(await readFile(file, signal ? { signal } : {}));
  } catch (error) {
    signal?.throwIfAborted();
    throw new BundleError(`cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`, hint, { cause: error });
  }
}
