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

/** With the range of `expected` as peak. */
export function psnrDb(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new RangeError(`${actual.length} numbers, expected ${expected.length}`);
  }
  let [low, high, squares] = [Infinity, -Infinity, 0];
  for (let i = 0; i < expected.length; i++) {
    low = Math.min(low, expected[i]!);
    high = Math.max(high, expected[i]!);
    squares += (actual[i]! - expected[i]!) ** 2;
  }
  return 20 * Math.log10((high - low) / Math.max(Math.sqrt(squares / expected.length), 1e-12));
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
