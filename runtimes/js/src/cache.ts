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
  /** The files that went through this store. */
  readonly #used = new Set<string>();

  async get(sha256: string): Promise<Bytes | undefined> {
    this.#used.add(sha256);
    return readEntry(FILES + sha256);
  }

  async put(sha256: string, bytes: Bytes): Promise<void> {
    this.#used.add(sha256);
    await (await caches.open(CACHE_NAME)).put(FILES + sha256, new Response(bytes));
  }

  /**
   * Keep the manifest of a bundle whose programs are kept, and drop the files of the one before it that no manifest
   * lists any more: all pages and bundles of an origin have one cache. Returns whether all files that were used are
   * there: another tab may have dropped one that was not listed yet.
   */
  async keepManifest({ where, manifestBytes }: Bundle): Promise<boolean> {
    const cache = await caches.open(CACHE_NAME);
    const before = listHashes(await readEntry(manifestKey(where)));
    await cache.put(manifestKey(where), new Response(manifestBytes));
    if (before.length > 0) {
      const listed = await listKept(cache);
      await Promise.all(before.filter((hash) => !listed.has(hash)).map((hash) => cache.delete(FILES + hash)));
    }
    const held = await Promise.all([...this.#used].map((hash) => cache.match(FILES + hash)));
    return held.every((response) => response !== undefined);
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
      const isOffline = path === MANIFEST_NAME && error instanceof UnreachableError;
      const bytes = isOffline ? await readEntry(manifestKey(this.where)).catch(() => undefined) : undefined;
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

/** The hashes of all files that some kept manifest lists. */
async function listKept(cache: Cache): Promise<Set<string>> {
  const keys = (await cache.keys()).map(({ url }) => url).filter((url) => url.startsWith(MANIFESTS));
  return new Set((await Promise.all(keys.map(readEntry))).flatMap(listHashes));
}

function manifestKey(where: string): string {
  return MANIFESTS + encodeURIComponent(where);
}

function listHashes(bytes: Bytes | undefined): string[] {
  if (bytes === undefined) {
    return [];
  }
  const manifest = JSON.parse(new TextDecoder().decode(bytes)) as Manifest; // parsed before it was kept
  return [...Object.values(manifest.files), ...(manifest.packs ?? [])].map((file) => file.sha256);
}
