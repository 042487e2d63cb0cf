const MAX_SEED = 2n ** 64n - 1n;

/** A seed as a user types it; undefined where it is no whole number from 0 to 2^64 - 1. */
export function parseSeed(text: string): bigint | undefined {
  const digits = text.trim();
  return /^\d{1,20}$/.test(digits) && BigInt(digits) <= MAX_SEED ? BigInt(digits) : undefined;
}

/** Short enough to be read out and typed. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! % 1_000_000;
}
