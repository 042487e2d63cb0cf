/** A picture: RGBA, row by row, as a canvas takes it. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray<ArrayBuffer>;
}

/** A decoded image, float (1, 3, height, width) in [0, 1], as a picture. */
export function toPicture(image: Float32Array, shape: readonly number[]): Picture {
  const [height, width] = [shape[2]!, shape[3]!];
  const size = height * width;
  const data = new Uint8ClampedArray(4 * size);
  for (let i = 0; i < size; i++) {
    for (let channel = 0; channel < 3; channel++) {
      // this array clamps, and rounds halves to even, as numpy's rint does
      data[4 * i + channel] = Math.fround(image[channel * size + i]! * 255);
    }
    data[4 * i + 3] = 255;
  }
  return { width, height, data };
}
