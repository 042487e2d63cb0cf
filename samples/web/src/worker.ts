/** The worker: opens a bundle and draws with it. */
import { BundleError, checkGolden, hashBytes, isGuided, KindError, parsePack, TargetError, type ClassInfo, type Frame, type Generator, type Pack } from "@kind/runtime";
import { openBundle, wasmEngine, webgpuEngine, type OpenedBundle } from "@kind/runtime/web";
import wasmMjs from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { HAS_WEBGPU } from "./build.js";
import type { AddPackRequest, Answer, DrawRequest, Drawn, Failure, Message, Opened, OpenRequest, Progress } from "./protocol.js";

declare const self: DedicatedWorkerGlobalScope;

type Report = (progress: Progress, transfer?: Transferable[]) => void;

let opened: OpenedBundle | undefined;
const packs = new Map<string, Pack>();
const running = new Map<number, AbortController>();

self.onmessage = async ({ data: message }: MessageEvent<Message>) => {
  if (message.kind === "abort") {
    running.get(message.id)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(message.id, controller);
  const answer = (content: Omit<Answer, "id">, transfer: Transferable[] = []) =>
    self.postMessage({ id: message.id, ...content }, transfer);
  const report: Report = (progress, transfer) => answer({ kind: "progress", progress } as Answer, transfer);
  try {
    answer({ kind: "done", result: await handle(message, controller.signal, report) } as Answer);
  } catch (error) {
    answer({ kind: "failed", failure: describe(error) } as Answer);
  } finally {
    running.delete(message.id);
  }
};

function handle(message: Message, signal: AbortSignal, report: Report): Promise<Opened | Drawn | ClassInfo> {
  switch (message.kind) {
    case "open":
      return open(message, signal, report);
    case "draw":
      return draw(message, signal, report);
    case "add-pack":
      return addPack(message);
    case "abort":
      throw new TypeError("an abort has no answer");
  }
}

async function open(request: OpenRequest, signal: AbortSignal, report: Report): Promise<Opened> {
  const start = performance.now();
  await opened?.generator.release();
  opened = undefined;
  packs.clear();
  let isKept = true;
  const engine = await openEngine(request.engine);
  opened = await openBundle(request.url, {
    engine,
    signal,
    onProgress: (received, total) => report({ kind: "loading", received, total }),
    onNotKept: () => (isKept = false),
  });
  // export checked onnxruntime's CPU kernels; those of a GPU and its driver are checked here, before they draw
  const parityDb = request.engine === "webgpu" ? await checkGolden(opened.bundle, opened.generator, { signal }) : null;
  const { manifest } = opened.bundle;
  const { precision, programs } = manifest.targets["onnx"]!;
  const files = Object.values(programs).map((program) => manifest.files[program.file]!.size_bytes);
  return {
    name: manifest.name,
    manifestSha256: await hashBytes(opened.bundle.manifestBytes),
    classes: manifest.classes,
    packIds: manifest.packs?.map((pack) => pack.id) ?? [],
    takesPacks: manifest.pack_base !== undefined,
    steps: manifest.steps,
    sampler: manifest.sampler,
    guidance: manifest.distillation?.guidance_scale ?? manifest.guidance_scale,
    isGuidanceBuiltIn: manifest.distillation !== undefined,
    isGuided: Array.from({ length: manifest.steps }, (_, index) => isGuided(manifest, index)),
    precision,
    sizeBytes: files.reduce((sum, size) => sum + size, 0),
    engine: engine.name,
    threads: engine.threads,
    isKept: isKept && opened.isKept,
    parityDb,
    openMs: performance.now() - start,
  };
}

async function openEngine(name: OpenRequest["engine"]) {
  if (name === "wasm") {
    return wasmEngine({ wasmPaths: { mjs: wasmMjs, wasm } });
  }
  if (!HAS_WEBGPU) {
    throw new TypeError("this page was built without WebGPU");
  }
  const { default: wasmPaths } = await import("./webgpu_files.js");
  return webgpuEngine({ wasmPaths });
}

async function draw(request: DrawRequest, signal: AbortSignal, report: Report): Promise<Drawn> {
  const { generator, index } = await choose(request.classId, signal);
  const { seed, guidance, isPreviewed } = request;
  const stepMs: number[] = [];
  let last: Frame | undefined;
  for await (const frame of generator.generate({
    ...(index === undefined ? {} : { class: index }),
    ...(opened!.bundle.manifest.distillation === undefined ? { guidance } : {}), seed, signal, previewEvery: isPreviewed ? 1 : 0,
  })) {
    stepMs.push(frame.stepMs);
    last = frame;
    const { step, steps, picture } = frame;
    report({ kind: "stepped", step, steps, stepMs: frame.stepMs, picture: step < steps ? picture : null });
    await nextTask(); // where an abort is heard
  }
  if (last?.picture == null) {
    throw new BundleError("the bundle has no decode program: it makes latents, not pictures");
  }
  const { picture, decodeMs } = last;
  return { picture, stepMs, decodeMs, imageMs: stepMs.reduce((sum, ms) => sum + ms, 0) + decodeMs };
}

/** The generator of a class, with its pack attached where it is one. */
async function choose(classId: string, signal: AbortSignal): Promise<{ generator: Generator; index: number | undefined }> {
  const { bundle, generator } = opened!;
  if (bundle.manifest.pack_base === undefined) {
    return { generator, index: bundle.manifest.classes.findIndex((info) => info.id === classId) };
  }
  if (!packs.has(classId)) {
    packs.set(classId, await bundle.pack(classId, { signal }));
  }
  return { generator: generator.withPack(packs.get(classId)!), index: undefined };
}

async function addPack({ name, bytes }: AddPackRequest): Promise<ClassInfo> {
  const pack = parsePack(new Uint8Array(bytes), name);
  opened!.generator.withPack(pack); // throws where it is for another base
  packs.set(pack.info.id, pack);
  return pack.info;
}

function describe(error: unknown): Failure {
  const { name, message, hint = "" } = error as Error & { hint?: string };
  const isSound = error instanceof KindError && !(error instanceof TargetError);
  return { name: name ?? "Error", message: message ?? String(error), hint, isSound };
}

function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}
