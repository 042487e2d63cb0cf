/** The bundles that the tests run: written by tests/js_bundles.py, or already lying in KIND_TEST_BUNDLES. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../../..");

export default function setup(): (() => void) | undefined {
  if (process.env["KIND_TEST_BUNDLES"] !== undefined) {
    return undefined;
  }
  const folder = mkdtempSync(join(tmpdir(), "kind-bundles-"));
  const paths = [join(ROOT, "tests"), process.env["PYTHONPATH"]].filter((path) => path !== undefined);
  execFileSync("python3", [join(ROOT, "tests/js_bundles.py"), folder], {
    env: { ...process.env, PYTHONPATH: paths.join(delimiter) },
    stdio: ["ignore", "ignore", "inherit"],
  });
  process.env["KIND_TEST_BUNDLES"] = folder;
  return () => rmSync(folder, { recursive: true });
}
