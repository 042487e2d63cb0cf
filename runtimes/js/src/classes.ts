/** Class names, as Python's `kind_core.classes` finds them: from what a user types to one class, without guessing. */
import { ClassNameError } from "./errors.js";
import type { ClassInfo } from "./manifest.js";
import { cleanText } from "./naming.js";

/** A bare noun that names two animals: people who type it mean the first, by its name or its id. */
const PREFERRED = new Map([["panda", { name: "giant panda", id: "n02510455" }]]);
/** Endings of a plural and of its singular, the likeliest first: shoes, buses, berries, wolves, knives. */
const PLURALS = [["s", ""], ["es", ""], ["ies", "y"], ["ves", "f"], ["ves", "fe"]] as const;
/** Whether a form of what was asked for fits a class, the strictest first. */
const RULES: readonly ((form: string, info: ClassInfo) => boolean)[] = [isName, isSingular, isTail];

/**
 * Index of a class: by its id, one of its names, or all of them with commas between, to the letter; then by any of these
 * or the last words of a name, whatever case, separators or plural. Of a giant and another panda, `panda` is the giant.
 *
 * Throws ClassNameError where none fits, or several equally well.
 */
export function findClass(query: string, classes: readonly ClassInfo[]): number {
  const index = findExact(query, classes) ?? findPreferred(query, classes);
  if (index !== undefined) {
    return index;
  }
  const found = findFirst(query, classes);
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

/** The one class that is called so letter by letter: ids go before names, a name before all names together. */
function findExact(query: string, classes: readonly ClassInfo[]): number | undefined {
  const text = cleanText(query);
  return [idOf, namesOf, fullNameOf]
    .map((called) => matches(classes, (info) => called(info).map(cleanText).includes(text)))
    .find((found) => found.length === 1)?.[0];
}

function findPreferred(query: string, classes: readonly ClassInfo[]): number | undefined {
  const preferred = listForms(query).map((form) => PREFERRED.get(form)).find((one) => one !== undefined);
  if (preferred === undefined) {
    return undefined;
  }
  const found = [...new Set([...listFits(query, classes)].flat())];
  const meant = found.filter((index) => classes[index]!.id === preferred.id || isName(preferred.name, classes[index]!));
  return meant.length === 1 && found.length > 1 ? meant[0] : undefined;
}

function findFirst(query: string, classes: readonly ClassInfo[]): number[] {
  for (const fits of listFits(query, classes)) {
    if (fits.length > 0) {
      return fits;
    }
  }
  return [];
}

/** The classes that `query` fits under one rule after the other; each list may be empty. */
function* listFits(query: string, classes: readonly ClassInfo[]): Generator<number[]> {
  for (const fits of RULES) {
    for (const form of listForms(query)) {
      yield matches(classes, (info) => fits(form, info));
    }
  }
}

function matches(classes: readonly ClassInfo[], fits: (info: ClassInfo) => boolean): number[] {
  return [...classes.keys()].filter((index) => fits(classes[index]!));
}

function isName(form: string, info: ClassInfo): boolean {
  return [idOf, namesOf, fullNameOf].some((called) => called(info).map(normalise).includes(form));
}

function isSingular(form: string, info: ClassInfo): boolean {
  return info.names.some((name) => listForms(name).includes(form));
}

function isTail(form: string, info: ClassInfo): boolean {
  return form !== "" && info.names.some((name) => normalise(name).endsWith(` ${form}`));
}

/** `text` as it stands, then every singular that it may be the plural of. */
function listForms(text: string): string[] {
  const words = normalise(text).split(" ");
  const head = words.slice(0, -1);
  return [words.at(-1)!, ...listSingulars(words.at(-1)!)].map((word) => [...head, word].join(" "));
}

function listSingulars(word: string): string[] {
  const length = [...word].length; // an emoji is one letter
  const plurals = word.endsWith("ss") ? [] : PLURALS.filter(([s]) => word.endsWith(s) && length > s.length + 1);
  return plurals.map(([s, to]) => word.slice(0, -s.length) + to);
}

/** Without case, separators and ways to write the same letter. */
function normalise(text: string): string {
  const folded = text.normalize("NFKC").split("ı").map(fold).join("ı").normalize("NFKC");
  return folded.split(/[\s_\-/,]+/).filter(Boolean).join(" ");
}

/** Upper case makes SS of ß, which ẞ is in lower case; an ı, which has the upper case of i, is a letter of its own. */
function fold(text: string): string {
  return text.toLowerCase().toUpperCase().toLowerCase();
}
