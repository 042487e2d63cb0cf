/** The pictures of this visit, the newest first. */
import type { Picture } from "@kind/runtime";

import { paint } from "./page.js";

const MAX_PICTURES = 24;

export interface Drawing {
  readonly classId: string;
  readonly name: string;
  readonly seed: bigint;
  readonly guidance: number;
  readonly picture: Picture;
}

export class Gallery {
  constructor(
    private readonly list: HTMLElement,
    private readonly section: HTMLElement,
    private readonly onChosen: (drawing: Drawing) => void,
  ) {}

  add(drawing: Drawing): void {
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    button.type = "button";
    paint(canvas, drawing.picture);
    button.append(canvas, `${drawing.name}, ${drawing.seed}`);
    button.setAttribute("aria-label", `Show ${drawing.name}, seed ${drawing.seed}, guidance ${drawing.guidance}`);
    button.addEventListener("click", () => this.onChosen(drawing));
    const item = document.createElement("li");
    item.append(button);
    this.list.prepend(item);
    this.list.children[MAX_PICTURES]?.remove();
    this.section.hidden = false;
  }
}
