/** The trajectory that a bundle brings along tells a right engine from a wrong one. */
import { describe, expect, test } from "vitest";

import { Bundle, checkGolden, FolderSource, Generator, nodeEngine, TargetError, type Engine } from "../src/node.js";
import { bundlePath } from "./support.js";

async function open(name: string, engine: Engine): Promise<[Bundle, Generator]> {
  const bundle = await Bundle.open(new FolderSource(bundlePath(`${name}.kind`)));
  return [bundle, await Generator.open(bundle, engine)];
}

/** An engine whose outputs are off by a share of themselves. */
function wrongEngine(share: number): Engine {
  const engine = nodeEngine();
  return {
    name: "a wrong engine",
    threads: null,
    open: async (model, spec) => {
      const program = await engine.open(model, spec);
      const scale = (values: Float32Array) => values.map((value) => value * (1 + share));
      const run: typeof program.run = async (inputs) =>
        Object.fromEntries(Object.entries(await program.run(inputs)).map(([name, values]) => [name, scale(values)]));
      return { ...program, run };
    },
  };
}

describe.each(["plain", "interval", "base"])("of the bundle '%s'", (name) => {
  test("onnxruntime-node computes what the eager model does", async () => {
    expect(await checkGolden(...(await open(name, nodeEngine())))).toBeGreaterThan(60);
  });

  test.each([0.2, NaN])("an engine that is off by %d is refused", async (share) => {
    const opened = await open(name, wrongEngine(share));
    await expect(checkGolden(...opened)).rejects.toThrow(TargetError);
  });
});
