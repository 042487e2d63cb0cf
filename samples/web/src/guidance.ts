/** The slider of the guidance scale: it shows every scale that the model takes as it is. */
import { MAX_GUIDANCE } from "@kind/runtime";

import { element } from "./page.js";
import type { Opened } from "./protocol.js";

const STEPS = 20; // of the slider, to one
const USUAL_END = 8; // unless more is asked for

const slider = element("guidance", HTMLInputElement);
slider.addEventListener("input", () => {
  // the slider itself has no step, so that it can stand at any bundle's own scale
  slider.valueAsNumber = Math.round(slider.valueAsNumber * STEPS) / STEPS;
  showScale();
});

export function guidanceScale(): number {
  return slider.valueAsNumber;
}

/** Stand at a scale. The ends give way to it: a slider changes what lies beyond them in silence. */
export function setGuidance(scale: number): void {
  slider.min = String(Math.min(0, scale));
  slider.max = String(Math.max(USUAL_END, scale));
  slider.valueAsNumber = scale;
  showScale();
}

/** Stand at the scale that was asked for, where it is one that the model takes, otherwise at the bundle's own. */
export function offerGuidance(model: Opened, asked: string | null): void {
  const scale = Number.parseFloat(asked ?? "");
  setGuidance(!model.isGuidanceBuiltIn && Math.abs(scale) <= MAX_GUIDANCE ? scale : model.guidance);
  slider.disabled = model.isGuidanceBuiltIn || !model.isGuided.includes(true);
  element("guidance-note", HTMLElement).textContent = describe(model);
}

function describe({ guidance: usual, isGuided, isGuidanceBuiltIn, steps }: Opened): string {
  if (isGuidanceBuiltIn) {
    return `${usual} is built into the model, which takes no other.`;
  }
  const guidedSteps = isGuided.filter(Boolean).length;
  const part = guidedSteps === steps ? "" : `; it acts in ${guidedSteps} of the ${steps} steps`;
  return `How strictly the picture follows the class. ${usual} is the bundle's${part}.`;
}

function showScale(): void {
  element("guidance-value", HTMLElement).textContent = String(Math.round(slider.valueAsNumber * 100) / 100);
}
