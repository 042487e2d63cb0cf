// Holds ONNX bundles against the golden data that they bring along, in Node: node golden.mjs BUNDLE [BUNDLE ...]
import { Bundle, checkGolden, FolderSource, Generator, nodeEngine } from "@kind/runtime/node";

for (const path of process.argv.slice(2)) {
  const bundle = await Bundle.open(new FolderSource(path));
  const generator = await Generator.open(bundle, nodeEngine());
  const start = performance.now();
  const db = await checkGolden(bundle, generator); // throws below 35 dB
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`${process.arch} ${path} ${generator.engine}: trajectory ${db.toFixed(1)} dB (gate 35), ${seconds} s`);
}
