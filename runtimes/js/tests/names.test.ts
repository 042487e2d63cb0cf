/** Names and packs are read and written as Python does it: `vectors.json` comes from `tests/mobile_vectors.py`. */
import { readFileSync } from "node:fs";

import { expect, test } from "vitest";

import { BundleError, findClass, nameFile, parsePack, type ClassInfo } from "../src/index.js";

interface Vectors {
  readonly classes: readonly { readonly classes: readonly ClassInfo[]; readonly query: string; readonly index: number | null }[];
  readonly packs: readonly { readonly what: string; readonly base64: string; readonly is_refused: boolean; readonly says?: string }[];
  readonly stems: readonly { readonly text: string; readonly stem: string }[];
}

const vectors = JSON.parse(readFileSync(new URL("vectors.json", import.meta.url), "utf8")) as Vectors;

test.each(vectors.classes)("$query is $index of $classes", ({ classes, query, index }) => {
  if (index === null) {
    expect(() => findClass(query, classes)).toThrow(/unknown class|may be/);
  } else {
    expect(findClass(query, classes)).toBe(index);
  }
});

test.each(vectors.stems)("a file of $text is called $stem", ({ text, stem }) => {
  expect(nameFile(text)).toBe(stem);
});

test.each(vectors.packs)("a pack, $what, is read or refused in one line", ({ base64, is_refused, says }) => {
  const read = () => parsePack(new Uint8Array(Buffer.from(base64, "base64")), "a.pack");
  if (is_refused) {
    expect(read).toThrow(BundleError);
    expect(read).toThrow(new RegExp(`^[^\\n]*a\\.pack[^\\n]*${says}[^\\n]*$`));
  } else {
    expect(read().info.names).toEqual(["lemon"]);
  }
});
