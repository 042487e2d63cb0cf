/** What people write, in any alphabet, as names of files: as Python's `kind_core.naming` does it. */
import { sha256 } from "@noble/hashes/sha2.js";

import { toHex } from "./hash.js";

const MAX_STEM_BYTES = 100;
const DIGEST_LETTERS = 8;
// letters, digits and emoji of any alphabet; what a later Unicode may know as one of them, too
const OTHERS = /(?:(?![\p{L}\p{M}\p{N}\p{S}\p{Cn}])[^\0-\x7f]|[\0-/:-`{-\x7f])+/gu;
const INVISIBLE = /[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0000}-\u{e0fff}]/gu;
const RESERVED = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)/i; // on Windows

/** One sequence of letters for one spelling: an accent may be part of its letter or follow it. */
export function cleanText(text: string): string {
  return text.replaceAll(/[\ud800-\udfff]/gu, "\ufffd").normalize("NFC");
}

/** `text` as the stem of a visible file name, in small letters and dashes; never empty, at most 100 bytes. */
export function nameFile(text: string): string {
  const shown = cleanText(text.toLowerCase()).replaceAll(INVISIBLE, "");
  const slug = cleanText(shown.replaceAll(OTHERS, "-")).replaceAll(/^-+|-+$/g, "");
  return slug === "" ? `class-${digest(text)}` : shorten(slug.replace(RESERVED, "$1_"), text);
}

function shorten(stem: string, text: string): string {
  const bytes = new TextEncoder().encode(stem);
  if (bytes.length <= MAX_STEM_BYTES) {
    return stem;
  }
  // a letter that is cut in two is left out
  const start = new TextDecoder().decode(bytes.slice(0, MAX_STEM_BYTES - DIGEST_LETTERS - 1), { stream: true });
  return `${start.replace(/[_.-]+$/, "")}-${digest(text)}`;
}

function digest(text: string): string {
  return toHex(sha256(new TextEncoder().encode(cleanText(text)))).slice(0, DIGEST_LETTERS);
}
