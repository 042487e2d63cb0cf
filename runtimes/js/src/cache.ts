/** What a browser keeps of bundles, so that they open without a network: verified files, by hash. */
import type { Bundle, Store } from "./bundle.js";
import { MANIFEST_NAME, type Manifest } from "./manifest.js";
import { UnreachableError, type Bytes, type ReadOptions, type Source } from "./source.js";

const CACHE_NAME = "kind-bundles/1";
// keys of a cache are URLs; these are of no server
const FILES = "https://bundle.invalid/sha256/";
const MANIFESTS = "https://bundle.invalid/manifest/";

/** Whether this page may keep files: only in a secure context (https, or a server of this machine). */
export function canKeep(): boolean {
  return typeof globalThis.caches !== "undefined";
}

export class CacheStore implements Store {
  async get(sha256: string): Promise<Bytes | undefined> {
    return readEntry(FILES + sha256);
  }

  async put(sha256: string, bytes: Bytes): Promise<void> {
    await (await caches.open(CACHE_NAME)).put(FILES + sha256, new Response(bytes));
  }

  /** Keep the manifest of a bundle whose programs are kept, and drop the files that only the one before it listed. */
  async keepManifest({ where, manifest, manifestBytes }: Bundle): Promise<void> {
    const cache = await caches.open(CACHE_NAME);
    const before = await readManifest(where);
    await cache.put(manifestKey(where), new Response(manifestBytes));
    const listed = new Set(listHashes(manifest));
    const left = before === undefined ? [] : listHashes(before).filter((hash) => !listed.has(hash));
    await Promise.all(left.map((hash) => cache.delete(FILES + hash)));
  }
}

/** A source whose manifest comes from the cache where its server cannot be reached. */
export class KeptSource implements Source {
  readonly where: string;

  constructor(private readonly source: Source) {
    this.where = source.where;
  }

  async read(path: string, options?: ReadOptions): Promise<Bytes> {
    try {
      return await this.source.read(path, options);
    } catch (error) {
      const kept = path === MANIFEST_NAME && error instanceof UnreachableError;
      const bytes = kept ? await readEntry(manifestKey(this.where)) : undefined;
      if (bytes === undefined) {
        throw error;
      }
      return bytes;
    }
  }
}

async function readEntry(key: string): Promise<Bytes | undefined> {
  const response = await (await caches.open(CACHE_NAME)).match(key);
  return response && new Uint8Array(await response.arrayBuffer());
}

async function readManifest(where: string): Promise<Manifest | undefined> {
  const bytes = await readEntry(manifestKey(where));
  return bytes && (JSON.parse(new TextDecoder().decode(bytes)) as Manifest);
}

function manifestKey(where: string): string {
  return MANIFESTS + encodeURIComponent(where);
}

function listHashes(manifest: Manifest): string[] {
  return [...Object.values(manifest.files), ...(manifest.packs ?? [])].map((file) => file.sha256);
}
