/** Runs a bundle of kind-export: what `@kind/runtime/web` and `@kind/runtime/node` have in common. */
export { findClass } from "./classes.js";
export { Bundle, type OpenBundleOptions, type Store } from "./bundle.js";
export { OrtEngine, type Engine, type Program } from "./engine.js";
export { BundleError, ClassNameError, ConfigError, KindError, TargetError } from "./errors.js";
export { checkGolden } from "./golden.js";
export { hashBytes } from "./hash.js";
export { Generator, MAX_GUIDANCE, type DrawOptions, type Frame, type OpenGeneratorOptions } from "./generator.js";
export { isGuided, type ClassInfo, type Manifest, type PackSpec } from "./manifest.js";
export { nameFile } from "./naming.js";
export { checkSeed, drawWords, MAX_SEED, startNoise, type Seed } from "./noise.js";
export { parsePack, type Pack } from "./packs.js";
export type { Picture } from "./pictures.js";
export { UnreachableError, UrlSource, type ReadOptions, type Source } from "./source.js";
