/** The page that ships inside the Python package leaves WebGPU out: its WebAssembly file has 27 MB. */
export const HAS_WEBGPU = import.meta.env.MODE !== "package";
