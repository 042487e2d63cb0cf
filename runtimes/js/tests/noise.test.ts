import { readFileSync } from "node:fs";

import { describe, expect, test } from "vitest";

import { ConfigError, drawWords, startNoise } from "../src/index.js";

interface Vector {
  seed: string;
  words: number[];
  normals: number[];
}

const file = new URL("../../../kind_core/data/noise_vectors.json", import.meta.url);
const { vectors } = JSON.parse(readFileSync(file, "utf-8")) as { vectors: Vector[] };

describe("the shared test vectors", () => {
  test.each(vectors)("of seed $seed", ({ seed, words, normals }) => {
    expect([...drawWords(BigInt(seed), words.length / 4)]).toEqual(words);
    const drawn = startNoise(BigInt(seed), normals.length);
    normals.forEach((normal, i) => expect(Math.abs(drawn[i]! - normal)).toBeLessThan(1e-6 * Math.max(1, Math.abs(normal))));
  });
});

test("a seed is the same as a number and as a bigint", () => {
  expect(startNoise(7, 8)).toEqual(startNoise(7n, 8));
});

test("what the last block has too many is dropped", () => {
  expect(startNoise(3, 5)).toEqual(startNoise(3, 8).slice(0, 5));
  expect(startNoise(3, 0)).toHaveLength(0);
});

test.each([-1, 1.5, NaN, 2 ** 53, 2n ** 64n, -1n])("%s is refused as a seed", (seed) => {
  expect(() => startNoise(seed, 4)).toThrow(ConfigError);
});
