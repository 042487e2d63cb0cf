/** The page: what a user chooses goes to the worker, what it draws is shown. */
import { findClass, type ClassInfo, type Picture } from "@kind/runtime";

import { HAS_WEBGPU } from "./build.js";
import { Client, Failed } from "./client.js";
import { listFacts, summarise } from "./facts.js";
import { Gallery, type Drawing } from "./gallery.js";
import { guidanceScale, offerGuidance, setGuidance } from "./guidance.js";
import { measure, type Measured } from "./measure.js";
import { element, hideProblem, paintLarge, reveal, savePng, saveText, showProblem } from "./page.js";
import type { Drawn, EngineName, Opened, Progress } from "./protocol.js";
import { parseSeed, randomSeed } from "./seed.js";

const parameters = new URLSearchParams(location.search);
const bundleUrl = new URL(parameters.get("bundle") ?? "bundle/", location.href).href;
const client = new Client();

const controls = element("controls", HTMLFormElement);
const choices = element("choices", HTMLFieldSetElement);
const classes = element("class", HTMLSelectElement);
const packFile = element("pack", HTMLInputElement);
const seedText = element("seed", HTMLInputElement);
const seedError = element("seed-error", HTMLElement);
const keepSeed = element("keep-seed", HTMLInputElement);
const sharp = element("sharp", HTMLInputElement);
const preview = element("preview", HTMLInputElement);
const drawButton = element("draw", HTMLButtonElement);
const downloadButton = element("download", HTMLButtonElement);
const engine = element("engine", HTMLSelectElement);
const measureButton = element("measure", HTMLButtonElement);
const canvas = element("picture", HTMLCanvasElement);
const progressBar = element("progress", HTMLProgressElement);
const status = element("status", HTMLElement);
const speed = element("speed", HTMLElement);

let model: Opened | undefined;
let shown: Drawing | undefined;
let inSight: Picture | undefined; // the last step of one that is being drawn, too
let running: AbortController | undefined;
let measured: Measured | undefined;
let isDrawn = false; // what the choices say, so that Draw draws another picture
const gallery = new Gallery(element("gallery", HTMLElement), element("gallery-section", HTMLElement), recall);

async function open(): Promise<void> {
  setBusy(true);
  model = undefined;
  hideProblem();
  status.textContent = "Loading the model …";
  element("facts", HTMLElement).replaceChildren(); // they are of the engine before
  try {
    model = await client.open({ url: bundleUrl, engine: engine.value as EngineName }, showProgress);
  } catch (error) {
    status.textContent = "There is no model to draw with.";
    tell(error, reopen);
    engine.disabled = false;
    element("about", HTMLDetailsElement).open = engine.value !== "wasm"; // where the other engine is chosen
    return;
  } finally {
    setProgress(0, 1);
  }
  showModel(model);
  setBusy(false);
  speed.textContent = "";
  status.textContent = "Ready.";
}

/** Give up what the worker holds, packs that were added too, and open the bundle again. */
async function reopen(): Promise<void> {
  client.restart();
  await open();
}

function showModel(opened: Opened): void {
  const names = opened.classes.map((info) => info.names[0]);
  const title = names.length <= 3 ? names.join(", ") : `${names.length} classes`;
  element("title", HTMLElement).textContent = title;
  document.title = `${title} · KIND`;
  const before = classes.value;
  classes.replaceChildren(...opened.classes.map(makeOption));
  selectClass(before, opened.classes);
  element("pack-field", HTMLElement).hidden = !opened.takesPacks;
  offerGuidance(opened, parameters.get("guidance"));
  element("facts", HTMLElement).replaceChildren(...listFacts(opened, bundleUrl));
}

function makeOption(info: ClassInfo): HTMLOptionElement {
  return new Option(info.names.slice(0, 2).join(", "), info.id);
}

function selectClass(before: string, held: readonly ClassInfo[]): void {
  const id = findChosen(before, held);
  if (id === "") {
    const nothing = new Option("Choose a class", "");
    nothing.hidden = true;
    classes.prepend(nothing);
  }
  classes.value = id;
}

/** The id that was chosen before or, at first, that of the address; none where the bundle does not hold it. */
function findChosen(before: string, held: readonly ClassInfo[]): string {
  if (before !== "") {
    return held.some((info) => info.id === before) ? before : ""; // a pack that was added is there no more
  }
  const named = parameters.get("class");
  try {
    return held[named === null ? 0 : findClass(named, held)]!.id; // as kind-run finds it: `panda` is the giant panda
  } catch (error) {
    tell(error);
    return "";
  }
}

async function draw(): Promise<void> {
  if (isDrawn && !keepSeed.checked) {
    seedText.value = String(randomSeed());
  }
  const seed = parseSeed(seedText.value);
  showSeedError(seed === undefined);
  if (seed === undefined || model === undefined) {
    seedText.focus();
    return;
  }
  if (!classes.reportValidity()) {
    return;
  }
  hideProblem();
  reveal(canvas);
  const request = { classId: classes.value, seed, guidance: guidanceScale() };
  const name = classes.selectedOptions[0]!.text.split(", ")[0]!;
  status.textContent = `Drawing ${name}, seed ${seed} …`;
  const start = performance.now();
  const drawn = await run((signal) => client.draw({ ...request, isPreviewed: preview.checked }, showProgress, signal), draw);
  if (drawn === undefined) {
    return;
  }
  isDrawn = true;
  shown = { ...request, name, picture: drawn.picture };
  gallery.add(shown);
  show(shown);
  status.textContent = `${name}, seed ${seed}: drawn in ${summarise(drawn, performance.now() - start).image}.`;
  speed.textContent = summarise(drawn, performance.now() - start).details;
  remember(shown);
}

/** Run what can be stopped, with the button turned into one to stop; undefined where it was stopped or failed. */
async function run(task: (signal: AbortSignal) => Promise<Drawn>, again: () => Promise<void>): Promise<Drawn | undefined> {
  const controller = new AbortController();
  running = controller;
  setBusy(true);
  try {
    return await task(controller.signal);
  } catch (error) {
    shown = undefined;
    if (controller.signal.aborted) {
      status.textContent = `Stopped after step ${progressBar.value} of ${progressBar.max}.`;
    } else {
      status.textContent = "Nothing was drawn.";
      tell(error, async () => {
        if (!(error instanceof Failed && error.isSound)) {
          await reopen();
        }
        await again();
      });
    }
    return undefined;
  } finally {
    running = undefined;
    setProgress(0, 1);
    setBusy(false);
  }
}

function showProgress(progress: Progress): void {
  if (progress.kind === "loading") {
    setProgress(progress.received, progress.total);
    speed.textContent = `${(progress.received / 1e6).toFixed(1)} of ${(progress.total / 1e6).toFixed(1)} MB`;
    return;
  }
  const { step, steps, stepMs, picture } = progress;
  setProgress(step, steps);
  speed.textContent = `step ${step} of ${steps} · ${stepMs.toFixed(1)} ms`;
  if (picture !== null) {
    showPicture(picture, `Step ${step} of ${steps}`);
  }
}

function setProgress(done: number, total: number): void {
  progressBar.max = total;
  progressBar.value = done;
  progressBar.classList.toggle("idle", done === 0);
}

function showPicture(picture: Picture, label: string): void {
  inSight = picture;
  paintLarge(canvas, picture, { isSharp: sharp.checked });
  element("invitation", HTMLElement).hidden = true;
  canvas.setAttribute("aria-label", label);
}

function show(drawing: Drawing): void {
  showPicture(drawing.picture, `${drawing.name}, drawn from seed ${drawing.seed}`);
  downloadButton.disabled = false;
}

function recall(drawing: Drawing): void {
  if (running !== undefined) {
    return;
  }
  shown = drawing;
  classes.value = drawing.classId;
  seedText.value = String(drawing.seed);
  setGuidance(drawing.guidance);
  showSeedError(false);
  show(drawing);
  reveal(canvas);
  status.textContent = `${drawing.name}, seed ${drawing.seed}, drawn before.`;
  speed.textContent = "";
}

/** The address of the page names the picture, so that it can be sent or kept. */
function remember({ classId, seed, guidance: scale }: Drawing): void {
  parameters.set("class", classId);
  parameters.set("seed", String(seed));
  parameters.set("guidance", String(scale));
  history.replaceState(null, "", `?${parameters}`);
}

async function addPack(file: File): Promise<void> {
  hideProblem();
  try {
    const info = await client.addPack({ name: file.name, bytes: await file.arrayBuffer() });
    if (![...classes.options].some((option) => option.value === info.id)) {
      classes.add(makeOption(info));
    }
    classes.value = info.id;
    status.textContent = `${info.names[0]} was added.`;
  } catch (error) {
    tell(error);
  } finally {
    packFile.value = ""; // so that the same file can be chosen again
  }
}

async function startMeasuring(): Promise<void> {
  if (!classes.reportValidity()) {
    return;
  }
  const request = { classId: classes.value, guidance: guidanceScale() };
  const note = element("measured", HTMLElement);
  await run(async (signal) => {
    const drawOne = (seed: bigint) => client.draw({ ...request, seed, isPreviewed: false }, showProgress, signal);
    measured = await measure(model!, drawOne, (text) => (note.textContent = text));
    note.textContent = measured.summary;
    speed.textContent = "";
    element("save-measured", HTMLElement).hidden = false;
    return measured.last;
  }, startMeasuring);
}

function tell(error: unknown, retry?: () => Promise<void>): void {
  showProblem(error, retry);
  speed.textContent = "";
}

function setBusy(isBusy: boolean): void {
  choices.disabled = isBusy;
  measureButton.disabled = engine.disabled = isBusy;
  drawButton.disabled = isBusy && running === undefined;
  drawButton.textContent = running === undefined ? "Draw" : "Stop";
  drawButton.classList.toggle("stop", running !== undefined);
  downloadButton.disabled = isBusy || shown === undefined;
}

function showSeedError(isWrong: boolean): void {
  seedText.setAttribute("aria-invalid", String(isWrong));
  seedError.hidden = !isWrong;
  seedError.textContent = isWrong ? "A seed is a whole number from 0 to 18446744073709551615." : "";
}

controls.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running !== undefined) {
    running.abort();
  } else if (!drawButton.disabled) {
    void draw();
  }
});
controls.addEventListener("input", (event) => (isDrawn &&= event.target === keepSeed || event.target === sharp));
sharp.addEventListener("change", () => inSight && paintLarge(canvas, inSight, { isSharp: sharp.checked }));
document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
element("new-seed", HTMLButtonElement).addEventListener("click", () => {
  seedText.value = String(randomSeed());
  isDrawn = false;
  showSeedError(false);
});
packFile.addEventListener("change", () => packFile.files?.[0] && void addPack(packFile.files[0]));
downloadButton.addEventListener("click", () => shown && savePng(shown.picture, `${shown.name}-seed-${shown.seed}`));
engine.addEventListener("change", () => void reopen());
measureButton.addEventListener("click", () => void startMeasuring());
element("save-measured", HTMLElement).addEventListener("click", () => saveText(measured!.json, "kind-measured.json"));

seedText.value = parameters.get("seed") ?? seedText.value;
preview.checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;
element("engine-field", HTMLElement).hidden = !HAS_WEBGPU || !("gpu" in navigator);
navigator.serviceWorker?.register("sw.js").catch((error: unknown) => console.warn("no use without a network:", error));
await open();
if (model !== undefined && parameters.has("seed") && classes.value !== "") {
  await draw(); // the address names a picture
}
