/** What a bundle says of itself: `manifest.json`, its types, and the check against its schema. */
import { Validator, type Schema } from "@cfworker/json-schema";

import schema from "../../kind_runtimes/schemas/manifest.schema.json" with { type: "json" };
import { BundleError, TargetError } from "./errors.js";

export const MANIFEST_NAME = "manifest.json";
const FORMAT_VERSION = 2;
const TARGET = "onnx";
const MAX_STEPS = 10_000;
const MAX_NUMBERS = 2 ** 28;

export interface ClassInfo {
  readonly id: string;
  readonly names: readonly string[];
}

/** One input or output of a program. */
export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
}

export interface ProgramSpec {
  readonly file: string;
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

export interface TargetSpec {
  readonly precision: string;
  readonly programs: { readonly step: ProgramSpec; readonly step_unguided?: ProgramSpec; readonly decode?: ProgramSpec };
}

export interface FileSpec {
  readonly sha256: string;
  readonly size_bytes: number;
}

/** A class that was exported as a pack. A bundle may be shipped without the file. */
export interface PackSpec extends ClassInfo, FileSpec {
  readonly file: string;
}

/** What a model that draws in few steps was taught: guidance is built in, and no program has an input for it. */
export interface Distillation {
  readonly steps: readonly number[];
  readonly guidance_scale: number;
  readonly guidance_interval: readonly number[];
}

/** The fields of `manifest.json` that running needs, by their names there. */
export interface Manifest {
  readonly format_version: number;
  readonly name: string;
  readonly classes: readonly ClassInfo[];
  readonly steps: number;
  readonly sampler: string;
  readonly guidance_scale: number;
  readonly guided_steps?: readonly number[];
  readonly distillation?: Distillation;
  readonly initial_noise_scale: number;
  readonly latents_shape: readonly number[];
  readonly targets: Readonly<Record<string, TargetSpec>>;
  readonly files: Readonly<Record<string, FileSpec>>;
  /** Of a base, which holds no class in its programs: the hash that its packs carry. */
  readonly pack_base?: string;
  readonly packs?: readonly PackSpec[];
}

/** Parse `manifest.json`; throws BundleError naming the field that does not fit. */
export function parseManifest(text: string, where: string): Manifest {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new BundleError(`${where} is not JSON: ${(error as Error).message}`, "copy or export the bundle again");
  }
  const version = (data as { format_version?: unknown } | null)?.format_version;
  if (typeof version === "number" && version > FORMAT_VERSION) {
    throw new BundleError(
      `${where} has format_version ${version}, this program reads up to ${FORMAT_VERSION}`,
      "update the app",
    );
  }
  const { valid, errors } = new Validator(schema as Schema, "2020-12").validate(data);
  if (!valid) {
    const reason = errors.at(-1)!; // the innermost; those before it are the properties around it
    throw new BundleError(`${where}: ${reason.instanceLocation} ${reason.error}`, "export the bundle again");
  }
  const { steps, latents_shape } = data as Manifest;
  if (steps > MAX_STEPS || elementCount(latents_shape) > MAX_NUMBERS) {
    throw new BundleError(
      `${where} has ${steps} steps and latents_shape [${latents_shape}], more than any program's`,
      "export the bundle again",
    );
  }
  return data as Manifest;
}

/** The ONNX programs, which are the ones that run here; throws TargetError with what the bundle holds. */
export function onnxTarget(manifest: Manifest): TargetSpec {
  const target = manifest.targets[TARGET];
  if (target === undefined) {
    const held = Object.keys(manifest.targets).join(", ");
    throw new TargetError(`the bundle holds no ${TARGET} programs, only ${held}`, `export with --target ${TARGET}`);
  }
  return target;
}

/** Whether guidance is on in a step; without it the class is predicted alone. */
export function isGuided(manifest: Manifest, stepIndex: number): boolean {
  return manifest.guided_steps === undefined || manifest.guided_steps.includes(stepIndex);
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
