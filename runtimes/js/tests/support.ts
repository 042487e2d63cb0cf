import { readFileSync } from "node:fs";
import { join } from "node:path";

import type { Bytes, ReadOptions, Source } from "../src/source.js";
import { parseSafetensors, toFloats } from "../src/safetensors.js";

export function bundlePath(name: string): string {
  return join(process.env["KIND_TEST_BUNDLES"]!, name);
}

export function readFloats(file: string, tensor: string): Float32Array {
  return toFloats(parseSafetensors(readFileSync(file), file).tensors.get(tensor)!);
}

/** A source that gives out changed files. */
export class ChangedSource implements Source {
  readonly where: string;
  reads: string[] = [];

  constructor(
    private readonly source: Source,
    private readonly change: (path: string, bytes: Bytes) => Bytes,
  ) {
    this.where = source.where;
  }

  async read(path: string, options?: ReadOptions): Promise<Bytes> {
    this.reads.push(path);
    return this.change(path, await this.source.read(path, options));
  }
}
