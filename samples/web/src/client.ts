/** The worker, called with promises. */
import type { AddPackRequest, Answer, DrawRequest, Drawn, Failure, Opened, OpenRequest, Progress, Request } from "./protocol.js";
import type { ClassInfo } from "@kind/runtime";

/** What the worker could not do. */
export class Failed extends Error {
  readonly hint: string;
  readonly isSound: boolean;

  constructor({ name, message, hint, isSound }: Failure) {
    super(message);
    this.name = name;
    this.hint = hint;
    this.isSound = isSound;
  }
}

interface Pending {
  resolve(result: never): void;
  reject(error: Failed): void;
  onProgress(progress: Progress): void;
}

export class Client {
  readonly #pending = new Map<number, Pending>();
  #worker: Worker;
  #lastId = 0;

  constructor() {
    this.#worker = this.#start();
  }

  open(request: Omit<OpenRequest, "kind">, onProgress: (progress: Progress) => void): Promise<Opened> {
    return this.#call({ kind: "open", ...request }, onProgress);
  }

  draw(request: Omit<DrawRequest, "kind">, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Drawn> {
    return this.#call({ kind: "draw", ...request }, onProgress, signal);
  }

  addPack(request: Omit<AddPackRequest, "kind">): Promise<ClassInfo> {
    return this.#call({ kind: "add-pack", ...request }, () => undefined);
  }

  /** End the worker and all it does, and start a new one: memory that WebAssembly took comes back only so. */
  restart(): void {
    this.#worker.terminate();
    this.#failAll("the worker was restarted");
    this.#worker = this.#start();
  }

  #start(): Worker {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.#hear(data);
    worker.onerror = (event) => this.#failAll(event.message || "the worker does not start");
    return worker;
  }

  #call<T>(request: Request, onProgress: Pending["onProgress"], signal?: AbortSignal): Promise<T> {
    const id = ++this.#lastId;
    signal?.addEventListener("abort", () => this.#worker.postMessage({ id, kind: "abort" }));
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, ...request }, request.kind === "add-pack" ? [request.bytes] : []);
    });
  }

  #hear(answer: Answer): void {
    const pending = this.#pending.get(answer.id);
    if (answer.kind === "progress") {
      pending?.onProgress(answer.progress);
      return;
    }
    this.#pending.delete(answer.id);
    if (answer.kind === "done") {
      pending?.resolve(answer.result as never);
    } else {
      pending?.reject(new Failed(answer.failure));
    }
  }

  #failAll(message: string): void {
    for (const { reject } of this.#pending.values()) {
      reject(new Failed({ name: "WorkerError", message, hint: "reload the page", isSound: false }));
    }
    this.#pending.clear();
  }
}
