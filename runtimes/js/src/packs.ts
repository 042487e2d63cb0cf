/** Packs: one class as a download, a safetensors file that attaches to the base it was made for. */
import { BundleError } from "./errors.js";
import { elementCount, type ClassInfo, type Manifest, type TensorSpec } from "./manifest.js";
import { parseSafetensors, toFloats, type RawTensor, type TensorFile } from "./safetensors.js";

const PACK_VERSION = 1;
const PACK_DTYPE = "F16";
const PACK_TENSORS = ["tailor", "modulation_basis", "modulation_coefficients"];

/** A class as its file holds it. `name` is the file's, for errors. */
export interface Pack {
  readonly name: string;
  readonly info: ClassInfo;
  readonly base: string;
  readonly tensors: ReadonlyMap<string, RawTensor>;
}

/** Read a pack; throws BundleError for what is missing, damaged, newer or no pack. */
export function parsePack(bytes: Uint8Array, name: string): Pack {
  const file = parseSafetensors(bytes, name);
  const data = parseMetadata(file, name);
  for (const [key, { dtype }] of file.tensors) {
    if (dtype !== PACK_DTYPE) {
      throw new BundleError(`${name}: tensor '${key}' is ${dtype}, expected ${PACK_DTYPE}`, "download it again");
    }
  }
  for (const tensor of PACK_TENSORS) {
    if (!file.tensors.has(tensor)) {
      throw new BundleError(`${name} has no tensor '${tensor}'`, "download it again");
    }
    if (!toFloats(file.tensors.get(tensor)!).every(Number.isFinite)) {
      throw new BundleError(`${name}: '${tensor}' holds NaN or infinity, expected finite numbers`, "download it again");
    }
  }
  return { name, info: data.class, base: data.base, tensors: file.tensors };
}

/** Throw BundleError unless `pack` was made for the base of this bundle. */
export function checkPack(pack: Pack, manifest: Manifest): void {
  if (manifest.pack_base === undefined) {
    const held = manifest.classes.map((info) => info.names[0]).join(", ");
    throw new BundleError(`the bundle takes no packs: ${held} is built in`, "export a base with kind-export --packs");
  }
  if (pack.base !== manifest.pack_base) {
    throw new BundleError(
      `${pack.name} is a pack for base ${pack.base.slice(0, 12)}..., this bundle is base ${manifest.pack_base.slice(0, 12)}...`,
      "take the pack that was exported for this base, or update the base with the app",
    );
  }
}

/** The inputs of a step that a pack fills; zeros where there is none, the learngene alone. */
export function packInputs(pack: Pack | undefined, specs: readonly TensorSpec[]): Record<string, Float32Array> {
  const wanted = specs.filter((spec) => PACK_TENSORS.includes(spec.name));
  return Object.fromEntries(wanted.map((spec) => [spec.name, fill(pack, spec)]));
}

function fill(pack: Pack | undefined, spec: TensorSpec): Float32Array {
  if (pack === undefined) {
    return new Float32Array(elementCount(spec.shape));
  }
  const tensor = pack.tensors.get(spec.name)!;
  if (tensor.shape.join() !== spec.shape.join()) {
    throw new BundleError(
      `${pack.name}: '${spec.name}' has shape [${tensor.shape}], the base takes [${spec.shape}]`,
      "download the pack again",
    );
  }
  return toFloats(tensor);
}

function parseMetadata(file: TensorFile, name: string): { base: string; class: ClassInfo } {
  let data: { format_version?: unknown; base?: unknown; class?: Partial<ClassInfo> };
  try {
    data = (JSON.parse(file.metadata["pack"] ?? "") ?? {}) as typeof data;
  } catch {
    throw new BundleError(`${name} is not a pack: its metadata says nothing of one`, "make one with kind-export");
  }
  if (typeof data.format_version !== "number" || data.format_version > PACK_VERSION) {
    throw new BundleError(
      `${name} has format_version ${data.format_version}, this program reads up to ${PACK_VERSION}`,
      "update the app",
    );
  }
  const info = data.class;
  const isNamed = Array.isArray(info?.names) && info.names.length > 0 && info.names.every((one) => typeof one === "string");
  if (typeof data.base !== "string" || typeof info?.id !== "string" || !isNamed) {
    throw new BundleError(`${name} does not say which class it holds and which base it fits`, "export it again");
  }
  return { base: data.base, class: { id: info.id, names: info.names! } };
}
