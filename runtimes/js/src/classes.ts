import { ClassNameError } from "./errors.js";
import type { ClassInfo } from "./manifest.js";

/** Index of a class by id, by any of its names, or by the last words of one where only one class has them. */
export function findClass(query: string, classes: readonly ClassInfo[]): number {
  const wanted = normalise(query);
  const held = `the bundle holds ${classes.map((info) => info.names[0]).join(", ")}`;
  const exact = matches(classes, (name) => name === wanted);
  const found = exact.length > 0 ? exact : matches(classes, (name) => name.endsWith(` ${wanted}`));
  if (found.length === 1) {
    return found[0]!;
  }
  const names = found.map((index) => classes[index]!.names[0]).join(" or ");
  throw found.length === 0
    ? new ClassNameError(`unknown class '${query}'`, held)
    : new ClassNameError(`class '${query}' may be ${names}`, "give the whole name");
}

function matches(classes: readonly ClassInfo[], fits: (name: string) => boolean): number[] {
  const indices = classes.map((info, index) => ([info.id, ...info.names].map(normalise).some(fits) ? index : -1));
  return indices.filter((index) => index >= 0);
}

function normalise(text: string): string {
  return text.toLowerCase().split(/[\s_\-/,]+/).filter(Boolean).join(" ");
}
