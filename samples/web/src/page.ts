/** The document: finding elements, painting pictures, saving files. */
import { nameFile, type Picture } from "@kind/runtime";

/** The element of an id, of the class it has to be. */
export function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) {
    throw new TypeError(`index.html has no ${type.name} '${id}'`);
  }
  return found;
}

export function paint(canvas: HTMLCanvasElement, { width, height, data }: Picture): void {
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  canvas.getContext("2d")!.putImageData(new ImageData(data, width, height), 0, 0);
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
