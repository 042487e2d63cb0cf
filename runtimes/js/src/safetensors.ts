/** Reads safetensors files: a header of JSON, then the tensors' bytes. */
import { BundleError } from "./errors.js";

export interface RawTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface TensorFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, RawTensor>;
}

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

const SIZES: Readonly<Record<string, number>> = { F16: 2, F32: 4 };
const POINTER = new TextEncoder().encode("version https://git-lfs");

/** Throw BundleError where Git LFS left a few lines of text in a file's place. */
export function refusePointer(bytes: Uint8Array, name: string): void {
  if (POINTER.every((byte, index) => bytes[index] === byte)) {
    throw new BundleError(`${name} is a Git LFS pointer, not the file itself`, "run git lfs pull, or download it again");
  }
}

/** Parse a file; throws BundleError where it is damaged or holds another number format than F16 and F32. */
export function parseSafetensors(bytes: Uint8Array, name: string): TensorFile {
  refusePointer(bytes, name);
  const { header, data } = split(bytes, name);
  const tensors = new Map<string, RawTensor>();
  for (const [key, entry] of Object.entries(header)) {
    if (key !== "__metadata__") {
      tensors.set(key, slice(data, entry as Partial<Entry> | null, `${name}: tensor '${key}'`));
    }
  }
  return { metadata: (header["__metadata__"] ?? {}) as Record<string, string>, tensors };
}

/** The numbers of a tensor as 32-bit floats. */
export function toFloats(tensor: RawTensor): Float32Array {
  const view = new DataView(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.byteLength);
  const isHalf = tensor.dtype === "F16";
  const floats = new Float32Array(view.byteLength / SIZES[tensor.dtype]!);
  for (let i = 0; i < floats.length; i++) {
    floats[i] = isHalf ? halfToFloat(view.getUint16(2 * i, true)) : view.getFloat32(4 * i, true);
  }
  return floats;
}

/** The number of an IEEE half's 16 bits. */
export function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) {
    return fraction ? NaN : sign * Infinity;
  }
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function split(bytes: Uint8Array, name: string): { header: Record<string, unknown>; data: Uint8Array } {
  try {
    const size = Number(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(0, true));
    if (size > bytes.length - 8) {
      throw new RangeError(`its header has ${size} bytes, the file ${bytes.length}`);
    }
    const header: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + size)));
    if (typeof header !== "object" || header === null) {
      throw new TypeError("its header is no object");
    }
    return { header: header as Record<string, unknown>, data: bytes.subarray(8 + size) };
  } catch (error) {
    throw new BundleError(`${name} is not a whole safetensors file: ${(error as Error).message}`, "download it again");
  }
}

function slice(data: Uint8Array, entry: Partial<Entry> | null, what: string): RawTensor {
  const { dtype, shape, data_offsets } = entry ?? {};
  const size = SIZES[dtype ?? ""];
  if (dtype === undefined || size === undefined) {
    throw new BundleError(`${what} is ${dtype}, expected floating point: F16 or F32`, "export it again");
  }
  if (!Array.isArray(shape) || !Array.isArray(data_offsets)) {
    throw new BundleError(`${what} has no shape or no place in the file`, "download it again");
  }
  const [begin, end] = data_offsets;
  const expected = shape.reduce((product, length) => product * length, size);
  if (!(begin >= 0 && end <= data.length && end - begin === expected)) {
    throw new BundleError(`${what} has bytes ${begin} to ${end} of ${data.length}, expected ${expected}`, "download it again");
  }
  return { dtype, shape, bytes: data.subarray(begin, end) };
}
