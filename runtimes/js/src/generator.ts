/** The loop that an app writes: start noise, `step` for each step index, `decode`. No scheduler is needed. */
import type { Bundle } from "./bundle.js";
import { findClass } from "./classes.js";
import type { Arrays, Engine, Outputs, Program } from "./engine.js";
import { BundleError, ClassNameError, ConfigError } from "./errors.js";
import { elementCount, isGuided, onnxTarget, type Manifest, type ProgramSpec } from "./manifest.js";
import { startNoise, type Seed } from "./noise.js";
import { checkPack, packInputs, type Pack } from "./packs.js";
import { toPicture, type Picture } from "./pictures.js";
import type { ReadOptions } from "./source.js";

/** What a guidance scale may come to, of either sign. */
export const MAX_GUIDANCE = 100;

export interface DrawOptions {
  /** Id, name or index of a class that the programs hold [the bundle's only one]. With a pack: not given. */
  readonly class?: string | number | undefined;
  readonly seed?: Seed | undefined;
  readonly guidance?: number | undefined;
  /** Decode an intermediate picture after every so many steps; 0 is none [1]. The last step is always decoded. */
  readonly previewEvery?: number | undefined;
  /** Ends the drawing before its next step, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The state after a step. */
export interface Frame {
  /** Steps done, 1 to `steps`. */
  readonly step: number;
  readonly steps: number;
  readonly latents: Float32Array;
  readonly picture: Picture | null;
  /** Milliseconds of the step alone, and of decoding the picture. */
  readonly stepMs: number;
  readonly decodeMs: number;
}

export interface OpenGeneratorOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the programs that have arrived, of all. */
  readonly onProgress?: ((received: number, total: number) => void) | undefined;
}

interface Programs {
  readonly step: Program;
  readonly stepUnguided: Program | undefined;
  readonly decode: Program | undefined;
}

/**
 * The opened programs of a bundle. A base holds no class: `withPack` attaches one; without a pack it draws the
 * learngene alone. Several drawings at once take turns, a step each.
 */
export class Generator {
  readonly #attached: Arrays;

  private constructor(
    readonly manifest: Manifest,
    readonly engine: string,
    private readonly programs: Programs,
    readonly pack?: Pack,
  ) {
    this.#attached = packInputs(pack, programs.step.spec.inputs); // once: every step takes them
  }

  static async open(bundle: Bundle, engine: Engine, options: OpenGeneratorOptions = {}): Promise<Generator> {
    const { step, step_unguided, decode } = onnxTarget(bundle.manifest).programs;
    const specs = [step, step_unguided, decode].filter((spec) => spec !== undefined);
    const opened: Program[] = [];
    const load = loader(bundle, engine, specs, options);
    const keep = async (spec: ProgramSpec) => {
      const program = await load(spec);
      opened.push(program);
      return program;
    };
    try {
      const programs = {
        step: await keep(step),
        stepUnguided: step_unguided && (await keep(step_unguided)),
        decode: decode && (await keep(decode)),
      };
      return new Generator(bundle.manifest, engine.name, programs);
    } catch (error) {
      await Promise.allSettled(opened.map((program) => program.release()));
      throw error;
    }
  }

  /** The same programs with `pack` attached; throws BundleError when it was made for another base. */
  withPack(pack: Pack): Generator {
    checkPack(pack, this.manifest);
    return new Generator(this.manifest, this.engine, this.programs, pack);
  }

  /** The same programs with no class attached: the learngene alone. */
  withoutPack(): Generator {
    return new Generator(this.manifest, this.engine, this.programs);
  }

  /** Draw one picture, a frame a step; stop early by leaving the loop or by the signal. */
  generate(options: DrawOptions = {}): AsyncGenerator<Frame, void, undefined> {
    return this.generateFrom(startNoise(options.seed ?? 0, elementCount(this.manifest.latents_shape)), options);
  }

  /** The same from start noise of unit variance; the seed is only named in errors. */
  async *generateFrom(noise: Float32Array, options: DrawOptions = {}): AsyncGenerator<Frame, void, undefined> {
    const { seed = 0, guidance = this.manifest.guidance_scale, previewEvery = 1, signal } = options;
    const { distillation } = this.manifest;
    if (distillation !== undefined && options.guidance !== undefined) {
      throw new ConfigError(`guidance ${distillation.guidance_scale} is built in; another does not apply`, "leave it out");
    }
    if (!(Math.abs(guidance) <= MAX_GUIDANCE)) {
      throw new ConfigError(`guidance is ${guidance}, expected a finite number up to ${MAX_GUIDANCE}`);
    }
    const chosen = this.#chooseClass(options.class);
    let state: Arrays = this.#start(noise);
    for (let index = 0; index < this.manifest.steps; index++) {
      signal?.throwIfAborted();
      const [outputs, stepMs] = await timed(() => this.#step({ ...state, ...chosen }, index, guidance));
      // outputs are called next_latents and next_history: no format lets an output share its input's name
      state = Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name.replace(/^next_/, ""), value]));
      const latents = state["latents"] as Float32Array;
      const step = index + 1;
      const isLast = step === this.manifest.steps;
      if (isLast && !latents.every(Number.isFinite)) {
        throw new ConfigError(`seed ${seed} gives numbers that are not finite at guidance ${guidance}`, "lower it");
      }
      signal?.throwIfAborted();
      const isShown = isLast || (previewEvery > 0 && step % previewEvery === 0);
      const [picture, decodeMs] = await timed(async () => (isShown ? await this.#decode(latents) : null));
      yield { step, steps: this.manifest.steps, latents, picture, stepMs, decodeMs };
    }
  }

  /** Draw one picture, without intermediate ones. */
  async picture(options: Omit<DrawOptions, "previewEvery"> = {}): Promise<Picture> {
    if (this.programs.decode === undefined) {
      throw new BundleError("the bundle has no decode program: it makes latents, not pictures");
    }
    let picture: Picture | null = null;
    for await (const frame of this.generate({ ...options, previewEvery: 0 })) {
      picture = frame.picture;
    }
    return picture!;
  }

  /** Give the memory of the programs back, also for those that `withPack` made from this one. */
  async release(): Promise<void> {
    await Promise.all(Object.values(this.programs).map((program: Program | undefined) => program?.release()));
  }

  #start(noise: Float32Array): Arrays {
    const scale = Math.fround(this.manifest.initial_noise_scale);
    const latents = noise.map((value) => value * scale);
    return this.#takes("history") ? { latents, history: new Float32Array(latents.length) } : { latents };
  }

  #chooseClass(wanted: string | number | undefined): Arrays {
    const { classes } = this.manifest;
    if (!this.#takes("class_index")) {
      if (wanted !== undefined && wanted !== 0) {
        throw new ClassNameError(`class ${wanted} is not built into a base`, "attach its pack with withPack");
      }
      return this.#attached;
    }
    if (wanted === undefined && classes.length > 1) {
      const held = classes.map((info) => info.names[0]).join(", ");
      throw new ClassNameError(`no class was asked for, and there are ${classes.length}`, `the bundle holds ${held}`);
    }
    const index = typeof wanted === "string" ? findClass(wanted, classes) : (wanted ?? 0);
    if (classes[index] === undefined) {
      throw new ClassNameError(`class index is ${index}, expected 0 to ${classes.length - 1}`);
    }
    return { class_index: Int32Array.of(index) };
  }

  async #step(inputs: Arrays, index: number, guidance: number): Promise<Outputs> {
    const { step, stepUnguided } = this.programs;
    const program = stepUnguided !== undefined && !isGuided(this.manifest, index) ? stepUnguided : step;
    return program.run({ ...inputs, step_index: Int32Array.of(index), guidance: Float32Array.of(guidance) });
  }

  async #decode(latents: Float32Array): Promise<Picture | null> {
    const { decode } = this.programs;
    if (decode === undefined) {
      return null;
    }
    const { image } = await decode.run({ latents });
    return toPicture(image!, decode.spec.outputs[0]!.shape);
  }

  #takes(name: string): boolean {
    return this.programs.step.spec.inputs.some((spec) => spec.name === name);
  }
}

/** Reads and opens programs one after the other, so that only one file is held twice at a time. */
function loader(bundle: Bundle, engine: Engine, specs: readonly ProgramSpec[], options: OpenGeneratorOptions) {
  const total = specs.reduce((sum, spec) => sum + (bundle.manifest.files[spec.file]?.size_bytes ?? 0), 0);
  let before = 0;
  return async (spec: ProgramSpec): Promise<Program> => {
    const read: ReadOptions = {
      signal: options.signal,
      onBytes: (received) => options.onProgress?.(before + received, total),
    };
    const bytes = await bundle.read(spec.file, read);
    before += bytes.length;
    options.signal?.throwIfAborted();
    return engine.open(bytes, spec);
  };
}

async function timed<T>(task: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  const result = await task();
  return [result, performance.now() - start];
}
