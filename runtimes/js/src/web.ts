/** Bundles in the browser, by onnxruntime-web: WebAssembly everywhere, WebGPU where there is one. */
import type * as Ort from "onnxruntime-common";

import { Bundle, type OpenBundleOptions } from "./bundle.js";
import { CacheStore, canKeep, KeptSource } from "./cache.js";
import { OrtEngine, type Engine } from "./engine.js";
import { TargetError } from "./errors.js";
import { Generator, type OpenGeneratorOptions } from "./generator.js";
import { MANIFEST_NAME } from "./manifest.js";
import { UrlSource } from "./source.js";

export * from "./index.js";
export { CacheStore, canKeep, KeptSource } from "./cache.js";

const MAX_THREADS = 8;

export interface WebEngineOptions {
  /** Threads of WebAssembly [one for each core, up to 8; 1 where the page is not cross-origin isolated]. */
  readonly threads?: number | undefined;
  /** Where onnxruntime-web's own files lie [beside its module]. */
  readonly wasmPaths?: Ort.Env.WasmPrefixOrFilePaths | undefined;
}

/** WebAssembly on the CPU. */
export async function wasmEngine(options: WebEngineOptions = {}): Promise<Engine> {
  requireWebAssembly();
  const ort = await import("onnxruntime-web/wasm");
  const threads = configure(ort.env, options);
  const name = `${version(ort.env)}, WebAssembly, ${count(threads)}`;
  return new OrtEngine(name, threads, ort, { executionProviders: ["wasm"] });
}

/** WebGPU; operators that it lacks run in WebAssembly. Throws TargetError where there is no adapter. */
export async function webgpuEngine(options: WebEngineOptions = {}): Promise<Engine> {
  requireWebAssembly();
  if (!(await hasWebGpu())) {
    throw new TargetError("this browser offers no WebGPU adapter", "take the engine wasm, or another browser");
  }
  const ort = await import("onnxruntime-web/webgpu");
  configure(ort.env, options);
  return new OrtEngine(`${version(ort.env)}, WebGPU`, null, ort, { executionProviders: ["webgpu"] });
}

export async function hasWebGpu(): Promise<boolean> {
  const gpu = (globalThis.navigator as { gpu?: { requestAdapter(): Promise<object | null> } } | undefined)?.gpu;
  return gpu !== undefined && (await gpu.requestAdapter()) !== null;
}

export interface OpenWebOptions extends Omit<OpenBundleOptions, "store">, OpenGeneratorOptions {
  /** [wasmEngine()] */
  readonly engine?: Engine | undefined;
  /** Keep the bundle for when there is no network [where the browser can]. */
  readonly keep?: boolean | undefined;
}

export interface OpenedBundle {
  readonly bundle: Bundle;
  readonly generator: Generator;
  /** Whether it opens without a network from now on; packs only once they were read. */
  readonly isKept: boolean;
}

/** Open the bundle at a URL, relative to the page. */
export async function openBundle(url: string | URL, options: OpenWebOptions = {}): Promise<OpenedBundle> {
  const store = (options.keep ?? canKeep()) ? new CacheStore() : undefined;
  let isKept = store !== undefined;
  const onNotKept = (path: string, error: unknown) => {
    isKept = false;
    options.onNotKept?.(path, error);
  };
  const source = new UrlSource(url);
  const bundle = await Bundle.open(store ? new KeptSource(source) : source, { ...options, store, onNotKept });
  const generator = await Generator.open(bundle, options.engine ?? (await wasmEngine()), options);
  if (isKept) {
    try {
      isKept = await store!.keepManifest(bundle);
    } catch (error) {
      onNotKept(MANIFEST_NAME, error);
    }
  }
  return { bundle, generator, isKept };
}

/** Throws TargetError where WebAssembly, or its vector instructions, are missing. */
export function requireWebAssembly(): void {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD_MODULE)) {
    throw new TargetError(
      "this browser has no WebAssembly with vector instructions (SIMD)",
      "update it, or allow WebAssembly: iOS lockdown mode and some company policies switch it off",
    );
  }
}

// (module (func (result v128) (i8x16.splat (i32.const 0)) ...)): valid only with SIMD
const SIMD_MODULE = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
);

function configure(env: Ort.Env, { threads, wasmPaths }: WebEngineOptions): number {
  const cores = globalThis.crossOriginIsolated ? (globalThis.navigator?.hardwareConcurrency ?? 1) : 1;
  env.wasm.numThreads = threads ?? Math.min(cores, MAX_THREADS);
  if (wasmPaths !== undefined) {
    env.wasm.wasmPaths = wasmPaths;
  }
  return env.wasm.numThreads;
}

function version(env: Ort.Env): string {
  return `onnxruntime-web ${env.versions.web ?? env.versions.common}`;
}

function count(threads: number): string {
  return threads === 1 ? "1 thread" : `${threads} threads`;
}
