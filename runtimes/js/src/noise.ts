/**
 * Start noise: from a seed to normal numbers, the same in every language. The steps are written down in
 * kind_core/noise.py: Philox4x32-10 words, two normals from each pair of them by Box-Muller in 64-bit floats.
 */
import { ConfigError } from "./errors.js";

/** A whole number from 0 to 2^64 - 1; a bigint where it is above Number.MAX_SAFE_INTEGER. */
export type Seed = number | bigint;

export const MAX_SEED = 2n ** 64n - 1n;

const ROUNDS = 10;
const TWO_32 = 2 ** 32;

/** `count` standard normal numbers. */
export function startNoise(seed: Seed, count: number): Float32Array {
  const words = drawWords(seed, Math.ceil(count / 4));
  const normals = new Float32Array(words.length);
  for (let i = 0; i < words.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((words[i]! + 1) / TWO_32));
    const angle = 2 * Math.PI * (words[i + 1]! / TWO_32);
    normals[i] = radius * Math.cos(angle);
    normals[i + 1] = radius * Math.sin(angle);
  }
  return normals.subarray(0, count);
}

/** The first `blocks` Philox blocks of a seed, four words each. */
export function drawWords(seed: Seed, blocks: number): Uint32Array {
  const key = checkSeed(seed);
  const low = Number(key & 0xffffffffn);
  const high = Number(key >> 32n);
  const words = new Uint32Array(4 * blocks);
  for (let block = 0; block < blocks; block++) {
    philox(words, 4 * block, block, low, high);
  }
  return words;
}

/** `seed` as a bigint; throws ConfigError outside 0 to 2^64 - 1. */
export function checkSeed(seed: Seed): bigint {
  const isWhole = typeof seed === "bigint" || Number.isSafeInteger(seed);
  const value = isWhole ? BigInt(seed) : -1n;
  if (value < 0n || value > MAX_SEED) {
    throw new ConfigError(`seed is ${seed}, expected a whole number from 0 to ${MAX_SEED}`, "above 2^53 give a bigint");
  }
  return value;
}

function philox(words: Uint32Array, at: number, block: number, low: number, high: number): void {
  let [c0, c1, c2, c3] = [block >>> 0, Math.floor(block / TWO_32), 0, 0];
  let [k0, k1] = [low, high];
  for (let round = 0; round < ROUNDS; round++) {
    const [high0, low0] = [multiplyHigh(0xd2511f53, c0), Math.imul(0xd2511f53, c0)];
    const [high1, low1] = [multiplyHigh(0xcd9e8d57, c2), Math.imul(0xcd9e8d57, c2)];
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1 >>> 0, (high0 ^ c3 ^ k1) >>> 0, low0 >>> 0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  words.set([c0, c1, c2, c3], at);
}

/** The upper 32 bits of a product of two 32-bit words, in halves of 16 bits: a double holds 53. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const other = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (other >>> 16);
}
