/** The document: finding elements, painting pictures, saving files. */
import { KindError, nameFile, type Picture } from "@kind/runtime";

import { Failed } from "./client.js";

/** The element of an id, of the class it has to be. */
export function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) {
    throw new TypeError(`index.html has no ${type.name} '${id}'`);
  }
  return found;
}

const SHOWN_SIDE = 1024; // two pixels for each of the page's

/** Pixel by pixel. */
export function paint(canvas: HTMLCanvasElement, { width, height, data }: Picture): void {
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  canvas.getContext("2d")!.putImageData(new ImageData(data, width, height), 0, 0);
}

/** Enlarged, smoothly or in squares: what a page enlarges by its style gets the poorer smoothing that browsers have. */
export function paintLarge(canvas: HTMLCanvasElement, picture: Picture, { isSharp }: { isSharp: boolean }): void {
  const small = document.createElement("canvas");
  paint(small, picture);
  const factor = Math.max(1, Math.ceil(SHOWN_SIDE / Math.max(picture.width, picture.height)));
  [canvas.width, canvas.height] = [picture.width * factor, picture.height * factor];
  const context = canvas.getContext("2d")!;
  context.imageSmoothingEnabled = !isSharp;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Scroll where an element is out of sight, as the picture is above the buttons of a phone. */
export function reveal(shown: HTMLElement): void {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  shown.scrollIntoView({ block: "nearest", behavior: isStill ? "auto" : "smooth" });
}

/** Say at the top of the page what went wrong and what helps, with a button where `retry` may. */
export function showProblem(error: unknown, retry?: () => Promise<void>): void {
  const isKnown = error instanceof Failed || error instanceof KindError;
  const { message, hint } = isKnown ? error : { message: String(error), hint: "reload the page" };
  element("problem-message", HTMLElement).textContent = message;
  element("problem-hint", HTMLElement).textContent = hint && `What helps: ${hint}.`;
  const button = element("problem-retry", HTMLButtonElement);
  button.hidden = retry === undefined;
  button.onclick = () => void retry?.();
  const problem = element("problem", HTMLElement);
  problem.hidden = false;
  reveal(problem);
}

export function hideProblem(): void {
  element("problem", HTMLElement).hidden = true;
}

/** Save a picture, pixel by pixel as it was drawn. */
export function savePng(picture: Picture, name: string): void {
  const canvas = document.createElement("canvas");
  paint(canvas, picture);
  const file = `${nameFile(name)}.png`;
  canvas.toBlob((blob) => blob && saveBlob(blob, file), "image/png");
}

export function saveText(text: string, file: string): void {
  saveBlob(new Blob([text], { type: "application/json" }), file);
}

function saveBlob(blob: Blob, file: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the download reads it after the click
}
