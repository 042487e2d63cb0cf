/** What the page and its worker say to each other. The model runs in the worker, so that the page stays responsive. */
import type { ClassInfo, Picture } from "@kind/runtime";

export type EngineName = "wasm" | "webgpu";

export interface OpenRequest {
  readonly kind: "open";
  readonly url: string;
  readonly engine: EngineName;
}

export interface DrawRequest {
  readonly kind: "draw";
  /** Of `Opened.classes`, or of a pack that was added. */
  readonly classId: string;
  readonly seed: bigint;
  readonly guidance: number;
  readonly isPreviewed: boolean;
}

export interface AddPackRequest {
  readonly kind: "add-pack";
  readonly name: string;
  readonly bytes: ArrayBuffer;
}

export interface AbortRequest {
  readonly kind: "abort";
}

export type Request = OpenRequest | DrawRequest | AddPackRequest;
/** Requests are numbered, and their answers carry the number. */
export type Message = { readonly id: number } & (Request | AbortRequest);

/** A bundle that is ready to draw. */
export interface Opened {
  readonly name: string;
  readonly manifestSha256: string;
  readonly classes: readonly ClassInfo[];
  /** Ids of classes that are packs, and so may have to be downloaded. */
  readonly packIds: readonly string[];
  readonly takesPacks: boolean;
  readonly steps: number;
  readonly sampler: string;
  readonly guidance: number;
  readonly isGuidanceBuiltIn: boolean;
  /** For each step, whether guidance is on. */
  readonly isGuided: readonly boolean[];
  readonly precision: string;
  readonly sizeBytes: number;
  readonly engine: string;
  readonly threads: number | null;
  readonly isKept: boolean;
  /** Agreement of this engine with the eager model, where it was checked here. */
  readonly parityDb: number | null;
  readonly openMs: number;
}

/** A finished picture and what it took. */
export interface Drawn {
  readonly picture: Picture;
  readonly stepMs: readonly number[];
  readonly decodeMs: number;
  /** Steps and the last decode; intermediate pictures are not counted. */
  readonly imageMs: number;
}

export interface Loading {
  readonly kind: "loading";
  readonly received: number;
  readonly total: number;
}

export interface Stepped {
  readonly kind: "stepped";
  readonly step: number;
  readonly steps: number;
  readonly stepMs: number;
  readonly picture: Picture | null;
}

export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly hint: string;
  /** Whether the worker can go on. Otherwise it has to be started anew, as when memory ran out. */
  readonly isSound: boolean;
}

export type Progress = Loading | Stepped;
export type Answer = { readonly id: number } & (
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "done"; readonly result: Opened | Drawn | ClassInfo }
  | { readonly kind: "failed"; readonly failure: Failure }
);
