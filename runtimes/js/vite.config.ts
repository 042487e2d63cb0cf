import { defineConfig } from "vitest/config";

export default defineConfig({
  build: {
    target: "es2022",
    minify: false,
    lib: { entry: { index: "src/index.ts", web: "src/web.ts", node: "src/node.ts" }, formats: ["es"] },
    rollupOptions: { external: [/^node:/, /^onnxruntime-/, /^@noble\//, /^@cfworker\//] },
  },
  test: { include: ["tests/**/*.test.ts"], globalSetup: "tests/bundles.ts", testTimeout: 60_000 },
});
