/** What a browser keeps: the pages and bundles of one origin share a cache, and none drops what another lists. */
import { readFileSync } from "node:fs";

import { beforeEach, expect, test, vi } from "vitest";

import { Bundle } from "../src/bundle.js";
import { CacheStore, KeptSource } from "../src/cache.js";
import { hashBytes } from "../src/hash.js";
import { FolderSource, nodeEngine } from "../src/node.js";
import { UnreachableError, type Bytes, type ReadOptions, type Source } from "../src/source.js";
import { openBundle } from "../src/web.js";
import { bundlePath } from "./support.js";

/** The browser's caches, as far as they are used. */
function makeCaches() {
  const held = new Map<string, Bytes>();
  const cache = {
    match: async (key: string) => (held.has(key) ? new Response(held.get(key)!) : undefined),
    put: async (key: string, response: Response) => void held.set(key, new Uint8Array(await response.arrayBuffer())),
    delete: async (key: string) => held.delete(key),
    keys: async () => [...held.keys()].map((url) => ({ url })),
  };
  return { held, caches: { open: async () => cache } };
}

let held: Map<string, Bytes>;

beforeEach(() => {
  const made = makeCaches();
  held = made.held;
  vi.stubGlobal("caches", made.caches);
  return () => vi.unstubAllGlobals();
});

const STEP = "onnx/step.onnx";
const DECODE = "onnx/decode.onnx";

/** The tiny bundle at some address, `step` in a version of its own. */
class Version implements Source {
  private readonly folder = new FolderSource(bundlePath("plain.kind"));

  constructor(
    readonly where: string,
    private readonly version: number,
  ) {}

  async read(path: string, options?: ReadOptions): Promise<Bytes> {
    const bytes = await this.folder.read(path, options);
    if (path === STEP) {
      return bytes.with(100, this.version);
    }
    if (path !== "manifest.json") {
      return bytes;
    }
    const data = JSON.parse(new TextDecoder().decode(bytes));
    data.files[STEP].sha256 = await this.hash();
    return new TextEncoder().encode(JSON.stringify(data));
  }

  async hash(): Promise<string> {
    return hashBytes(await this.read(STEP));
  }
}

/** Open a version and keep it, as a page does. */
async function keep(source: Source): Promise<boolean> {
  const store = new CacheStore();
  const bundle = await Bundle.open(source, { store });
  await bundle.read(STEP);
  await bundle.read(DECODE);
  return store.keepManifest(bundle);
}

async function isHeld(source: Version): Promise<boolean> {
  return held.has(`https://bundle.invalid/sha256/${await source.hash()}`);
}

const A = "https://user.github.io/a/";
const B = "https://user.github.io/b/";

test("an older version goes when the same address has a newer one", async () => {
  const [first, second] = [new Version(A, 1), new Version(A, 2)];
  expect(await keep(first)).toBe(true);
  expect(await keep(second)).toBe(true);
  expect([await isHeld(first), await isHeld(second)]).toEqual([false, true]);
});

test("a file that another page lists stays when this one has a newer version", async () => {
  const [old, new_] = [new Version(A, 1), new Version(A, 2)];
  await keep(old);
  await keep(new Version(B, 1));
  await keep(new_);
  expect([await isHeld(old), await isHeld(new_)]).toEqual([true, true]);
  await keep(new Version(B, 2)); // now nobody lists it
  expect([await isHeld(old), await isHeld(new_)]).toEqual([false, true]);
});

test("files that both versions have stay", async () => {
  await keep(new Version(A, 1));
  const before = held.size;
  await keep(new Version(A, 2));
  expect(held.size).toBe(before);
});

test("a bundle is not called kept where another tab dropped one of its files", async () => {
  await keep(new Version(A, 1));
  const store = new CacheStore();
  const bundle = await Bundle.open(new Version(B, 1), { store });
  await bundle.read(STEP);
  await keep(new Version(A, 2)); // B's manifest is not kept yet
  expect(await store.keepManifest(bundle)).toBe(false);
});

test("where the caches may not be used, a server that cannot be reached is what is told", async () => {
  vi.stubGlobal("caches", { open: async () => Promise.reject(new DOMException("insecure", "SecurityError")) });
  const source = { where: A, read: async () => Promise.reject(new UnreachableError("no network")) };
  await expect(new KeptSource(source).read("manifest.json")).rejects.toThrow("no network");
});

test.each(["nothing", "no manifest"])("a bundle opens where the browser keeps %s, and is not called kept", async (what) => {
  vi.stubGlobal("fetch", async (url: URL) => new Response(readFileSync(bundlePath(`plain.kind${url.pathname}`))));
  const { caches } = makeCaches();
  const cache = await caches.open();
  const refuse = async () => Promise.reject(new DOMException("no more room", "QuotaExceededError"));
  const put = (key: string, response: Response) => (key.includes("/manifest/") ? refuse() : cache.put(key, response));
  vi.stubGlobal("caches", { open: what === "nothing" ? refuse : async () => ({ ...cache, put }) });
  const told: string[] = [];
  const onNotKept = (path: string) => told.push(path);
  const { generator, isKept } = await openBundle("https://example.org/", { engine: nodeEngine(), onNotKept });
  expect((await generator.picture({ class: 0 })).width).toBeGreaterThan(0);
  expect(isKept).toBe(false);
  expect(told.length).toBeGreaterThan(0);
  await generator.release();
});
