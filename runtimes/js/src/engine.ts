/** ONNX Runtime behind one interface, in the browser and in Node: load a model, call it with arrays by name. */
import type * as Ort from "onnxruntime-common";

import { BundleError, TargetError } from "./errors.js";
import type { ProgramSpec, TensorSpec } from "./manifest.js";
import type { Bytes } from "./source.js";

export type Arrays = Readonly<Record<string, Float32Array | Int32Array>>;
export type Outputs = Readonly<Record<string, Float32Array>>;

/** An opened program. */
export interface Program {
  readonly spec: ProgramSpec;
  run(inputs: Arrays): Promise<Outputs>;
  release(): Promise<void>;
}

export interface Engine {
  /** What really runs the programs, in words: "onnxruntime-web 1.30.0, WebAssembly, 4 threads". */
  readonly name: string;
  /** Threads asked for; null where the runtime chooses. */
  readonly threads: number | null;
  open(model: Bytes, spec: ProgramSpec): Promise<Program>;
}

type Runtime = Pick<typeof Ort, "InferenceSession" | "Tensor">;

const MEMORY_WORDS = /out of memory|bad_alloc|allocat|memory access|Memory\.grow|could not allocate/i;

/** An engine of one onnxruntime package. Its programs run one at a time, which onnxruntime-web requires. */
export class OrtEngine implements Engine {
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    readonly name: string,
    readonly threads: number | null,
    private readonly runtime: Runtime,
    private readonly options: Ort.InferenceSession.SessionOptions,
  ) {}

  async open(model: Bytes, spec: ProgramSpec): Promise<Program> {
    const session = await this.#inTurn(() => this.#create(model, spec));
    return {
      spec,
      run: (inputs) => this.#inTurn(() => this.#run(session, spec, inputs)),
      release: () => this.#inTurn(() => session.release()),
    };
  }

  async #create(model: Bytes, spec: ProgramSpec): Promise<Ort.InferenceSession> {
    try {
      return await this.runtime.InferenceSession.create(model, { logSeverityLevel: 3, ...this.options });
    } catch (error) {
      throw explainLoading(error, spec.file, model.length, this.name);
    }
  }

  async #run(session: Ort.InferenceSession, spec: ProgramSpec, inputs: Arrays): Promise<Outputs> {
    const feeds = Object.fromEntries(spec.inputs.map((input) => [input.name, this.#tensor(inputs, input, spec.file)]));
    const outputs = await session.run(feeds);
    return Object.fromEntries(spec.outputs.map(({ name }) => [name, outputs[name]!.data as Float32Array]));
  }

  #tensor(inputs: Arrays, { name, shape, dtype }: TensorSpec, file: string): Ort.Tensor {
    const array = inputs[name];
    if (array === undefined) {
      throw new TypeError(`${file} takes ${name}, which was not given`);
    }
    return new this.runtime.Tensor(dtype as "float32", array as Float32Array, shape);
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

function explainLoading(error: unknown, file: string, size: number, engine: string): Error {
  const reason = (error instanceof Error ? error.message : String(error)).split(/\s+/).join(" ");
  if (error instanceof RangeError || MEMORY_WORDS.test(reason)) {
    return new TargetError(
      `there is not enough memory for ${file} of ${(size / 1e6).toFixed(1)} MB: ${reason}`,
      "close other tabs and apps, or export with --precision int8",
      { cause: error },
    );
  }
  if (reason.includes("no available backend")) {
    return new TargetError(`${engine} does not start here: ${reason}`, "try another browser or engine", { cause: error });
  }
  return new BundleError(`onnxruntime cannot load ${file}: ${reason}`, "export the bundle again", { cause: error });
}
