/** What does not fit is refused by name, before it is run. */
import { createServer, type Server } from "node:http";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { Bundle, FolderSource, Generator, nodeEngine, openGenerator, parsePack, readPack, UnreachableError, type Store } from "../src/node.js";
import type { Bytes } from "../src/source.js";
import { bundlePath, ChangedSource } from "./support.js";

const STEP = "onnx/step.onnx";

function open(change: (path: string, bytes: Bytes) => Bytes, store?: Store) {
  const source = new ChangedSource(new FolderSource(bundlePath("plain.kind")), change);
  const opened = Bundle.open(source, { store }).then((bundle) => Generator.open(bundle, nodeEngine()));
  return { source, opened };
}

function changeManifest(change: (data: any) => void) {
  return open((path, bytes) => {
    if (path !== "manifest.json") {
      return bytes;
    }
    const data = JSON.parse(new TextDecoder().decode(bytes));
    change(data);
    return new TextEncoder().encode(JSON.stringify(data));
  }).opened;
}

describe("files", () => {
  test("with a changed byte are refused by their hash", async () => {
    const flip = (path: string, bytes: Bytes) => (path === STEP ? bytes.with(100, bytes[100]! ^ 1) : bytes);
    await expect(open(flip).opened).rejects.toThrow(/onnx\/step\.onnx has sha256 \w{12}\.\.\., the manifest expects/);
  });

  test("that are cut are refused by their size", async () => {
    const cut = (path: string, bytes: Bytes) => (path === STEP ? bytes.slice(0, 1000) : bytes);
    await expect(open(cut).opened).rejects.toThrow(/onnx\/step\.onnx has 1000 bytes, the manifest expects \d+/);
  });

  test("that are missing are named", async () => {
    await expect(openGenerator(bundlePath("none.kind"))).rejects.toThrow(/cannot read .*none\.kind.manifest\.json: ENOENT/);
  });

  test("outside the bundle are not read", async () => {
    const opened = changeManifest((data) => {
      data.targets.onnx.programs.step.file = "../secret.onnx";
      data.files["../secret.onnx"] = data.files[STEP];
    });
    await expect(opened).rejects.toThrow("lists '../secret.onnx', which is outside the bundle");
  });

  test("without a hash are not run", async () => {
    await expect(changeManifest((data) => delete data.files[STEP])).rejects.toThrow(`has no sha256 of ${STEP}`);
  });

  test("that are no model are an error of the bundle", async () => {
    const bundle = await Bundle.open(new FolderSource(bundlePath("plain.kind")));
    const spec = bundle.manifest.targets["onnx"]!.programs.step;
    const opened = nodeEngine().open(new TextEncoder().encode("no model"), spec);
    await expect(opened).rejects.toThrow(/onnxruntime cannot load onnx\/step\.onnx/);
  });
});

describe("the manifest", () => {
  test("without ONNX programs says what there is", async () => {
    const opened = changeManifest((data) => {
      data.targets = { coreml: data.targets.onnx };
    });
    await expect(opened).rejects.toMatchObject({
      message: "the bundle holds no onnx programs, only coreml",
      hint: "export with --target onnx",
    });
  });

  test("of a newer format is refused", async () => {
    await expect(changeManifest((data) => (data.format_version = 3))).rejects.toThrow("format_version 3, this program reads up to 2");
  });

  test.each([
    ["steps", 0],
    ["noise_generator", "another"],
    ["classes", []],
    ["latents_shape", "big"],
    ["latents_shape", [1, 3, 1e9, 1e9]],
    ["steps", 1e6],
  ])("whose %s does not fit is refused by the field", async (field, value) => {
    await expect(changeManifest((data) => (data[field] = value))).rejects.toThrow(field);
  });

  test("that is a web page is no JSON", async () => {
    const html = new TextEncoder().encode("<!doctype html>");
    await expect(open(() => html).opened).rejects.toThrow(/manifest\.json is not JSON/);
  });
});

describe("a store", () => {
  class Kept implements Store {
    files = new Map<string, Bytes>();
    get = async (hash: string) => this.files.get(hash);
    put = async (hash: string, bytes: Bytes) => void this.files.set(hash, bytes);
  }

  test("spares the second reading", async () => {
    const store = new Kept();
    await open((_, bytes) => bytes, store).opened;
    const { source, opened } = open((_, bytes) => bytes, store);
    await opened;
    expect(source.reads).toEqual(["manifest.json"]);
  });

  test("that the browser does not let be used is told, and spared", async () => {
    const refuse = async () => Promise.reject(new DOMException("the operation is insecure", "SecurityError"));
    const told: string[] = [];
    const source = new FolderSource(bundlePath("plain.kind"));
    const bundle = await Bundle.open(source, { store: { get: refuse, put: refuse }, onNotKept: (path) => told.push(path) });
    expect((await Generator.open(bundle, nodeEngine())).manifest.steps).toBe(4);
    expect(new Set(told)).toContain(STEP);
  });

  test("never holds what was not verified, and is not trusted", async () => {
    const store = new Kept();
    const cut = (path: string, bytes: Bytes) => (path === STEP ? bytes.slice(1) : bytes);
    await expect(open(cut, store).opened).rejects.toThrow();
    expect(store.files.size).toBe(0);
    await open((_, bytes) => bytes, store).opened;
    store.files.forEach((bytes, hash) => store.files.set(hash, bytes.slice(1)));
    const { source, opened } = open((_, bytes) => bytes, store);
    await opened;
    expect(source.reads).toContain(STEP);
  });
});

describe("a damaged pack", () => {
  const file = () => {
    const { packs } = JSON.parse(readFileSync(bundlePath("base.kind/manifest.json"), "utf-8"));
    return new Uint8Array(readFileSync(bundlePath(`base.kind/${packs[0].file}`)));
  };

  test.each([0, 4, 100, 1000])("of %i bytes is not whole", (size) => {
    expect(() => parsePack(file().slice(0, size), "a.pack")).toThrow(/a\.pack.*(not a whole|bytes)/);
  });

  test("with NaN inside is refused", () => {
    const bytes = file();
    bytes.fill(0xff, -2);
    expect(() => parsePack(bytes, "a.pack")).toThrow("holds NaN or infinity");
  });

  test("that is another safetensors file is no pack", () => {
    const golden = new Uint8Array(readFileSync(bundlePath("plain.kind/golden.safetensors")));
    expect(() => parsePack(golden, "a.pack")).toThrow("a.pack is not a pack");
  });
});

describe("over HTTP", () => {
  let server: Server;
  let url: string;

  beforeAll(async () => {
    server = createServer((request, response) => {
      const path = bundlePath(`plain.kind${request.url!.replace("/broken/", "/")}`);
      if (request.url!.startsWith("/gone/")) {
        response.writeHead(404).end();
      } else if (request.url === `/broken/${STEP}`) {
        response.writeHead(200, { "content-length": "5000" }).write("half");
        setTimeout(() => response.destroy(), 50);
      } else {
        response.end(readFileSync(path));
      }
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => server.close());

  test("a bundle opens, and says how much has arrived", async () => {
    const progress: [number, number][] = [];
    const generator = await openGenerator(url, { onProgress: (...numbers) => progress.push(numbers) });
    const folder = await openGenerator(bundlePath("plain.kind"));
    expect(await generator.picture({ class: 0 })).toEqual(await folder.picture({ class: 0 }));
    expect(progress.at(-1)![0]).toBe(progress.at(-1)![1]);
  });

  test("404, a broken download and no server are three errors", async () => {
    await expect(openGenerator(`${url}/gone`)).rejects.toThrow(/has no file manifest\.json/);
    await expect(openGenerator(`${url}/broken`)).rejects.toThrow(/the download of .*step\.onnx broke off after 4 bytes/);
    await expect(openGenerator("http://127.0.0.1:9")).rejects.toThrow(UnreachableError);
  });

  test("opening can be aborted", async () => {
    await expect(openGenerator(url, { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("a place", () => {
  const folders: string[] = [];
  afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

  function copyTo(name: string): string {
    const folder = mkdtempSync(join(tmpdir(), "kind-places-"));
    folders.push(folder);
    cpSync(bundlePath("base.kind"), join(folder, name), { recursive: true });
    return join(folder, name);
  }

  test.each(["plain", "a b %20 #1 ?x 猫 ö"])("called '%s' is opened by path and by file: URL", async (name) => {
    const folder = copyTo(name);
    const url = pathToFileURL(folder);
    const places = [folder, `${folder}/`, relative(process.cwd(), folder), url, url.href, `${url.href}/`, new URL(`${url.href}/`)];
    for (const place of places) {
      await (await openGenerator(place)).release();
    }
    const pack = join(folder, "packs", readdirSync(join(folder, "packs"))[0]!);
    expect((await readPack(pathToFileURL(pack))).info).toEqual((await readPack(pack)).info);
    expect((await readPack(pathToFileURL(pack).href)).info).toEqual((await readPack(pack)).info);
  });

  test("that no file can have is refused in words", async () => {
    await expect(openGenerator("file://elsewhere/panda.kind")).rejects.toThrow(/names no file here/);
    await expect(readPack(new URL("https://example.com/lemon.pack"))).rejects.toThrow(/lemon\.pack is no file/);
    await expect(openGenerator(pathToFileURL("/nowhere/panda.kind"))).rejects.toThrow(/cannot read \/nowhere\/panda\.kind/);
  });
});
