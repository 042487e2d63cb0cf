/** Where the files of onnxruntime-web with WebGPU lie; a module of its own, loaded only where they are asked for. */
import mjs from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";

export default { mjs, wasm };
