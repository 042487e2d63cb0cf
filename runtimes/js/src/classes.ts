import { ClassNameError } from "./errors.js";
import type { ClassInfo } from "./manifest.js";
import { cleanText } from "./naming.js";

/**
 * Index of a class: by its id, one of its names, or all of them with commas between, to the letter; then by any of these
 * or the last words of a name, whatever case and separators.
 */
export function findClass(query: string, classes: readonly ClassInfo[]): number {
  for (const called of [idOf, namesOf, fullNameOf]) {
    const found = matches(classes, (info) => called(info).map(cleanText).includes(cleanText(query)));
    if (found.length === 1) {
      return found[0]!;
    }
  }
  const wanted = normalise(query);
  const kindly = matches(classes, (info) => allOf(info).map(normalise).includes(wanted));
  const tails = matches(classes, (info) => wanted !== "" && info.names.some((name) => normalise(name).endsWith(` ${wanted}`)));
  const found = kindly.length > 0 ? kindly : tails;
  if (found.length === 1) {
    return found[0]!;
  }
  const held = `the bundle holds ${classes.map((info) => info.names[0]).join(", ")}`;
  const names = found.map((index) => `${classes[index]!.names[0]} (${classes[index]!.id})`).join(" or ");
  throw found.length === 0
    ? new ClassNameError(`unknown class '${query}'`, held)
    : new ClassNameError(`class '${query}' may be ${names}`, "give the whole name, or the id");
}

const idOf = (info: ClassInfo) => [info.id];
const namesOf = (info: ClassInfo) => info.names;
const fullNameOf = (info: ClassInfo) => [info.names.join(", ")];
const allOf = (info: ClassInfo) => [...idOf(info), ...namesOf(info), ...fullNameOf(info)];

function matches(classes: readonly ClassInfo[], fits: (info: ClassInfo) => boolean): number[] {
  return [...classes.keys()].filter((index) => fits(classes[index]!));
}

/** Without case, separators and ways to write the same letter. */
function normalise(text: string): string {
  // upper case first: it makes SS of \u00df
  const folded = text.normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC");
  return folded.split(/[\s_\-/,]+/).filter(Boolean).join(" ");
}
