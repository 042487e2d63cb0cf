/** A measurement in this browser, written as `kind-bench import` reads it. */
import { formatMs, median } from "./facts.js";
import type { Drawn, Opened } from "./protocol.js";

const WARMUP = 1;
const PICTURES = 10;
const PAGE_VERSION = "kind-web-sample 0.1.0";
// what a clock shows at least: browsers make it coarser where the page shares its process with others
const CLOCK_MS = globalThis.crossOriginIsolated ? 0.005 : 0.1;

export interface Measured {
  readonly summary: string;
  readonly json: string;
  readonly last: Drawn;
}

/** Draw some pictures, of seeds counted up, and gather what each step took. */
export async function measure(
  model: Opened,
  draw: (seed: bigint) => Promise<Drawn>,
  onProgress: (text: string) => void,
): Promise<Measured> {
  const created = new Date().toISOString();
  const drawn: Drawn[] = [];
  for (let i = 0; i < WARMUP + PICTURES; i++) {
    onProgress(i < WARMUP ? "warming up …" : `picture ${i - WARMUP + 1} of ${PICTURES} …`);
    drawn.push(await draw(BigInt(i)));
  }
  const counted = drawn.slice(WARMUP);
  const steps = (guided: boolean) => counted.flatMap((one) => one.stepMs.filter((_, i) => model.isGuided[i] === guided));
  const [guided, unguided] = [steps(true), steps(false)];
  const images = counted.map((one) => one.imageMs);
  const [step, image] = [median(guided.length ? guided : unguided), median(images)];
  return {
    summary: `one step ${step.toFixed(2)} ms, one picture ${formatMs(image)}: medians of ${PICTURES} pictures`,
    json: `${JSON.stringify(describe(model, created, guided, unguided, counted), null, 2)}\n`,
    last: drawn.at(-1)!,
  };
}

function describe(model: Opened, created: string, guided: number[], unguided: number[], counted: readonly Drawn[]) {
  return {
    format_version: 1,
    kind: "measured",
    made_by: PAGE_VERSION,
    created,
    bundle: { name: model.name, manifest_sha256: model.manifestSha256 },
    machine: {
      system: navigator.userAgent,
      processor: "not told by the browser",
      num_cpus: navigator.hardwareConcurrency,
    },
    cases: [
      {
        runtime: "onnx",
        engine: model.engine,
        threads: model.threads,
        provider: model.engine.includes("WebGPU") ? "WebGPU" : "WASM",
        precision: model.precision,
        process: "shared",
        warmup: WARMUP * model.steps,
        step_ms: spread(guided.length ? guided : unguided),
        ...(guided.length && unguided.length ? { step_unguided_ms: spread(unguided) } : {}),
        decode_ms: spread(counted.map((one) => one.decodeMs)),
        whole_image_ms: spread(counted.map((one) => one.imageMs)),
      },
    ],
  };
}

function spread(samples: readonly number[]) {
  return { samples: samples.map((ms) => Math.max(CLOCK_MS, Number(ms.toFixed(3)))) };
}
