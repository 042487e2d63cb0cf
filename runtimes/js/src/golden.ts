/** Whether an engine computes what the eager model does, by the trajectory that a bundle brings along. */
import type { Bundle } from "./bundle.js";
import { BundleError, ConfigError, TargetError } from "./errors.js";
import type { Frame, Generator } from "./generator.js";
import { parseSafetensors, toFloats, type TensorFile } from "./safetensors.js";
import type { ReadOptions } from "./source.js";

const GOLDEN_NAME = "golden.safetensors";
const PARITY_DB = 35;
const MAX_DB = 200;

/**
 * Draw the bundle's golden trajectory and give its agreement with the eager model in dB; throws TargetError below 35.
 * Of a base it is the learngene's alone, of other bundles that of the first class.
 */
export async function checkGolden(bundle: Bundle, generator: Generator, options: ReadOptions = {}): Promise<number> {
  const file = parseSafetensors(await bundle.read(GOLDEN_NAME, options), GOLDEN_NAME);
  const { packs, pack_base, steps } = bundle.manifest;
  const isBase = pack_base !== undefined;
  const index = isBase ? (packs?.length ?? 0) : 0;
  const noise = read(file, `${index}.noise`);
  const expected = read(file, `${index}.latents`).subarray(steps * noise.length);
  const drawer = isBase ? generator.withoutPack() : generator;
  const draw = { ...(isBase ? {} : { class: 0 }), previewEvery: 0, signal: options.signal };
  const measured = psnrDb(await drawLast(drawer.generateFrom(noise, draw)), expected);
  if (!(measured >= PARITY_DB)) {
    throw new TargetError(
      `${generator.engine} gives ${measured.toFixed(1)} dB against the eager model, expected ${PARITY_DB} dB or more`,
      "run it on the CPU (WebAssembly)",
    );
  }
  return measured;
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
  const error = Math.sqrt(squares / expected.length);
  return error === 0 ? MAX_DB : Math.min(MAX_DB, 20 * Math.log10((high - low) / error));
}

/** The last latents; not a number where they are not finite. */
async function drawLast(frames: AsyncIterable<Frame>): Promise<Float32Array> {
  let latents = new Float32Array();
  try {
    for await (const frame of frames) {
      latents = Float32Array.from(frame.latents);
    }
    return latents;
  } catch (error) {
    if (error instanceof ConfigError) {
      return latents.fill(NaN);
    }
    throw error;
  }
}

function read(file: TensorFile, name: string): Float32Array {
  const tensor = file.tensors.get(name);
  if (tensor === undefined) {
    throw new BundleError(`${GOLDEN_NAME} has no tensor '${name}'`, "export the bundle again");
  }
  return toFloats(tensor);
}
