/** A bundle: its manifest, and its files, which are given out only when they are the ones that were verified. */
import { BundleError } from "./errors.js";
import { hashBytes } from "./hash.js";
import { MANIFEST_NAME, onnxTarget, parseManifest, type FileSpec, type Manifest, type PackSpec } from "./manifest.js";
import { parsePack, type Pack } from "./packs.js";
import { refusePointer } from "./safetensors.js";
import type { Bytes, ReadOptions, Source } from "./source.js";

/** Keeps verified files between visits, by hash; see `CacheStore` for the browser's. */
export interface Store {
  get(sha256: string): Promise<Bytes | undefined>;
  /** Throws where it cannot keep them. */
  put(sha256: string, bytes: Bytes): Promise<void>;
}

export interface OpenBundleOptions {
  readonly store?: Store | undefined;
  /** Called where a file could not be kept, or looked for among those that are; it is used all the same. */
  readonly onNotKept?: ((path: string, error: unknown) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Bundle {
  private constructor(
    readonly manifest: Manifest,
    /** The bytes of the manifest: their hash names the bundle. */
    readonly manifestBytes: Bytes,
    private readonly source: Source,
    private readonly options: OpenBundleOptions,
  ) {}

  /** Read and check the manifest. Files are read, and their hashes checked, when they are needed. */
  static async open(source: Source, options: OpenBundleOptions = {}): Promise<Bundle> {
    const bytes = await source.read(MANIFEST_NAME, { signal: options.signal });
    refusePointer(bytes, `${source.where}${MANIFEST_NAME}`);
    const manifest = parseManifest(new TextDecoder().decode(bytes), `${source.where}${MANIFEST_NAME}`);
    onnxTarget(manifest);
    return new Bundle(manifest, bytes, source, options);
  }

  get where(): string {
    return this.source.where;
  }

  /** A file that the manifest lists; throws BundleError unless size and sha256 are those written there. */
  async read(path: string, options: ReadOptions = {}): Promise<Bytes> {
    const spec = this.manifest.files[path] ?? this.manifest.packs?.find((pack) => pack.file === path);
    if (spec === undefined) {
      throw new BundleError(`${MANIFEST_NAME} has no sha256 of ${path}`, "export the bundle again");
    }
    if (!staysInside(path)) {
      throw new BundleError(`${MANIFEST_NAME} lists '${path}', which is outside the bundle`, "export it again");
    }
    return this.#readKept(path, spec, options);
  }

  /** The pack of a base's class, by class id. */
  async pack(id: string, options: ReadOptions = {}): Promise<Pack> {
    const spec = this.manifest.packs?.find((pack: PackSpec) => pack.id === id);
    if (spec === undefined) {
      throw new BundleError(`the bundle lists no pack of class ${id}`, "add its file");
    }
    return parsePack(await this.read(spec.file, options), spec.file);
  }

  async #readKept(path: string, spec: FileSpec, options: ReadOptions): Promise<Bytes> {
    const kept = await this.#findKept(path, spec);
    // what lies in a store may have been damaged there; then it is read anew
    if (kept !== undefined && (await hashBytes(kept)) === spec.sha256) {
      options.onBytes?.(kept.length);
      return kept;
    }
    const bytes = await this.source.read(path, options);
    await this.#check(path, spec, bytes);
    try {
      await this.options.store?.put(spec.sha256, bytes);
    } catch (error) {
      this.options.onNotKept?.(path, error);
    }
    return bytes;
  }

  async #findKept(path: string, { sha256 }: FileSpec): Promise<Bytes | undefined> {
    try {
      return await this.options.store?.get(sha256);
    } catch (error) {
      this.options.onNotKept?.(path, error); // a browser may have a cache that it lets no page of this kind use
      return undefined;
    }
  }

  async #check(path: string, spec: FileSpec, bytes: Bytes): Promise<void> {
    refusePointer(bytes, path);
    if (bytes.length !== spec.size_bytes) {
      throw new BundleError(
        `${path} has ${bytes.length} bytes, the manifest expects ${spec.size_bytes}`,
        "the download is not whole; try again or copy the bundle again",
      );
    }
    const actual = await hashBytes(bytes);
    if (actual !== spec.sha256) {
      throw new BundleError(
        `${path} has sha256 ${actual.slice(0, 12)}..., the manifest expects ${spec.sha256.slice(0, 12)}...`,
        "the file was changed or damaged; copy or export the bundle again",
      );
    }
  }
}

function staysInside(path: string): boolean {
  return path !== "" && !/^[/\\]|^[A-Za-z]:|\\/.test(path) && !path.split("/").includes("..");
}
