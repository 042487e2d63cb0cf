/** What the page says of a model and of its speed. */
import type { Drawn, Opened } from "./protocol.js";

// the service worker isolates the page from its second visit on
const ONE_THREAD: [string, string][] = [
  ["Threads", globalThis.isSecureContext ? "one; more once the page is loaded again" : "one; more over https"],
];

/** Rows of a description list. */
export function listFacts(model: Opened, bundleUrl: string): HTMLElement[] {
  const canWorkOffline = model.isKept && "serviceWorker" in navigator;
  const rows: [string, string][] = [
    ["Bundle", bundleUrl],
    ["Steps", `${model.steps}, sampler ${model.sampler}; fixed when the bundle was exported`],
    ["Model", `${(model.sizeBytes / 1e6).toFixed(2)} MB, ${model.precision}`],
    ["Run by", model.engine],
    ...(globalThis.crossOriginIsolated ? [] : ONE_THREAD),
    ...(model.parityDb === null ? [] : [["Checked here", `${model.parityDb.toFixed(0)} dB against the eager model`] as [string, string]]),
    ["Opened in", formatMs(model.openMs)],
    ["Without network", canWorkOffline ? "works: the model is kept on this device" : "does not work: the browser keeps no files of this page"],
  ];
  return rows.flatMap(([name, value]) => {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, description.textContent] = [name, value];
    return [term, description];
  });
}

/** `image` is the computing alone; `details` also say what showing it took, `wallMs` in all. */
export function summarise(drawn: Drawn, wallMs: number): { image: string; details: string } {
  const image = formatMs(drawn.imageMs);
  const step = `one step ${median(drawn.stepMs).toFixed(1)} ms`; // in one line of a phone: what is below would move
  return { image, details: `${step} · shown after ${formatMs(wallMs)}` };
}

export function formatMs(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
