/** On bundles that Python exported: the pictures are Python's, and the latents the eager model's. */
import { describe, expect, test } from "vitest";

import { BundleError, ClassNameError, ConfigError, nodeEngine, openGenerator, readPack, type Frame, type Generator, type Program } from "../src/node.js";
import { psnrDb } from "../src/golden.js";
import { bundlePath, readFloats } from "./support.js";

const SEEDS = [7n, 2n ** 40n + 3n];
const GUIDANCE = 0.8; // of expected.safetensors
const PARITY_DB = 35;

async function openBase(index: number): Promise<Generator> {
  const base = await openGenerator(bundlePath("base.kind"));
  return base.withPack(await readPack(bundlePath(`base.kind/${base.manifest.packs![index]!.file}`)));
}

async function collect(frames: AsyncIterable<Frame>): Promise<Frame[]> {
  const all = [];
  for await (const frame of frames) {
    all.push(frame);
  }
  return all;
}

describe.each(["plain", "interval", "base"])("the bundle '%s'", (name) => {
  test.each([0, 1])("draws class %i as kind-run does", async (index) => {
    const isBase = name === "base";
    const generator = isBase ? await openBase(index) : await openGenerator(bundlePath(`${name}.kind`));
    for (const seed of SEEDS) {
      const picture = await generator.picture({ ...(isBase ? {} : { class: index }), seed, guidance: GUIDANCE });
      const expected = [0, 1].map((c) => readFloats(bundlePath("expected.safetensors"), `${name}.${c}.${seed}`));
      const rgb = picture.data.filter((_, i) => i % 4 !== 3);
      expect(psnrDb(rgb, expected[index]!)).toBeGreaterThan(PARITY_DB);
      expect(psnrDb(rgb, expected[1 - index]!)).toBeLessThan(PARITY_DB); // pictures that are all alike prove nothing
    }
  });
});

test("every step gives the eager model's latents", async () => {
  const golden = bundlePath("plain.kind/golden.safetensors");
  const noise = readFloats(golden, "0.noise");
  const latents = readFloats(golden, "0.latents"); // the scaled noise first
  const generator = await openGenerator(bundlePath("plain.kind"));
  const frames = await collect(generator.generateFrom(noise, { class: 0 }));
  frames.forEach((frame, i) => {
    const expected = latents.subarray((i + 1) * noise.length, (i + 2) * noise.length);
    expect(psnrDb(frame.latents, expected)).toBeGreaterThan(60);
  });
  expect(frames).toHaveLength(generator.manifest.steps);
});

test("intermediate pictures stream, and the last is the picture", async () => {
  const generator = await openGenerator(bundlePath("plain.kind"));
  const frames = await collect(generator.generate({ class: "lemon", seed: 7 }));
  expect(frames.map((frame) => frame.step)).toEqual([1, 2, 3, 4]);
  expect(frames.every((frame) => frame.picture !== null && frame.stepMs > 0)).toBe(true);
  expect(frames[0]!.picture!.data).not.toEqual(frames[3]!.picture!.data);
  expect(frames[3]!.picture).toEqual(await generator.picture({ class: "lemon", seed: 7 }));
  const rare = await collect(generator.generate({ class: "lemon", seed: 7, previewEvery: 3 }));
  expect(rare.map((frame) => frame.picture !== null)).toEqual([false, false, true, true]);
});

test("an aborted drawing ends with the reason, and the generator goes on working", async () => {
  const generator = await openGenerator(bundlePath("plain.kind"));
  const before = await generator.picture({ class: 0 });
  const controller = new AbortController();
  const steps: number[] = [];
  const drawing = (async () => {
    for await (const frame of generator.generate({ class: 1, signal: controller.signal })) {
      steps.push(frame.step);
      controller.abort();
    }
  })();
  await expect(drawing).rejects.toMatchObject({ name: "AbortError" });
  expect(steps).toEqual([1]);
  expect(await generator.picture({ class: 0 })).toEqual(before);
});

test("programs that were opened before one that cannot be are closed", async () => {
  const engine = nodeEngine();
  const open: string[] = [];
  const counted = {
    ...{ name: engine.name, threads: engine.threads },
    open: async (model: Uint8Array<ArrayBuffer>, spec: Program["spec"]): Promise<Program> => {
      if (spec.file.includes("decode")) {
        throw new RangeError("out of memory");
      }
      const program = await engine.open(model, spec);
      open.push(spec.file);
      return { ...program, release: async () => void open.splice(open.indexOf(spec.file), 1) };
    },
  };
  for (const name of ["plain.kind", "interval.kind"]) {
    await expect(openGenerator(bundlePath(name), { engine: counted })).rejects.toThrow("out of memory");
    expect(open).toEqual([]);
  }
});

test("two drawings at once do not disturb each other", async () => {
  const generator = await openGenerator(bundlePath("plain.kind"));
  const alone = [await generator.picture({ class: 0, seed: 1 }), await generator.picture({ class: 1, seed: 2 })];
  const together = await Promise.all([
    generator.picture({ class: 0, seed: 1 }),
    generator.picture({ class: 1, seed: 2 }),
  ]);
  expect(together).toEqual(alone);
  expect(alone[0]).not.toEqual(alone[1]);
});

test("classes are found by name, id and index, and otherwise listed", async () => {
  const generator = await openGenerator(bundlePath("plain.kind"));
  const byIndex = await generator.picture({ class: 1 });
  for (const name of ["seashore", "Coast", "n09428293"]) {
    expect(await generator.picture({ class: name })).toEqual(byIndex);
  }
  await expect(generator.picture({ class: "koala" })).rejects.toThrow("unknown class 'koala'");
  await expect(generator.picture({ class: 2 })).rejects.toThrow("class index is 2, expected 0 to 1");
  await expect(generator.picture({})).rejects.toThrow(ClassNameError);
});

test("guidance changes the picture, and must be a number of reasonable size", async () => {
  const generator = await openGenerator(bundlePath("plain.kind"));
  const [low, high] = [await generator.picture({ class: 0, guidance: 1 }), await generator.picture({ class: 0, guidance: 4 })];
  expect(low).not.toEqual(high);
  for (const guidance of [NaN, Infinity, 101]) {
    await expect(generator.picture({ class: 0, guidance })).rejects.toThrow(ConfigError);
  }
});

describe("packs", () => {
  test("a base draws the learngene before and after a pack, bit by bit", async () => {
    const base = await openGenerator(bundlePath("base.kind"));
    const before = await base.picture();
    const attached = base.withPack(await readPack(bundlePath(`base.kind/${base.manifest.packs![0]!.file}`)));
    expect(await attached.picture()).not.toEqual(before);
    expect(await attached.withoutPack().picture()).toEqual(before);
    await expect(base.picture({ class: "lemon" })).rejects.toThrow(ClassNameError);
  });

  test("of another base, and for a bundle that takes none, are refused", async () => {
    const other = await openGenerator(bundlePath("other.kind"));
    const foreign = await readPack(bundlePath(`other.kind/${other.manifest.packs![0]!.file}`));
    const base = await openGenerator(bundlePath("base.kind"));
    expect(() => base.withPack(foreign)).toThrow(/is a pack for base \w{12}\.\.\., this bundle is base \w{12}/);
    const plain = await openGenerator(bundlePath("plain.kind"));
    expect(() => plain.withPack(foreign)).toThrow("the bundle takes no packs: lemon, seashore is built in");
    await expect(readPack(bundlePath("none.pack"))).rejects.toThrow(BundleError);
  });
});
