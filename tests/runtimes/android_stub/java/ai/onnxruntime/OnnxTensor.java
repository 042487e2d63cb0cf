package ai.onnxruntime;

import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.util.Arrays;

/** Numbers with a shape; {@link #numOpen} counts those that nobody closed. */
public class OnnxTensor extends OnnxTensorLike {
    public static int numOpen = 0;
    final float[] floats;
    public final int[] integers;

    OnnxTensor(float[] floats, int[] integers, long[] shape) throws OrtException {
        int count = floats == null ? integers.length : floats.length;
        if (Arrays.stream(shape).reduce(1, (a, b) -> a * b) != count) throw new OrtException("shape");
        this.floats = floats;
        this.integers = integers;
        numOpen++;
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, FloatBuffer data, long[] shape) throws OrtException {
        float[] floats = new float[data.remaining()];
        data.duplicate().get(floats);
        return new OnnxTensor(floats, null, shape);
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, IntBuffer data, long[] shape) throws OrtException {
        int[] integers = new int[data.remaining()];
        data.duplicate().get(integers);
        return new OnnxTensor(null, integers, shape);
    }

    public FloatBuffer getFloatBuffer() { return floats == null ? null : FloatBuffer.wrap(floats.clone()); }

    @Override
    public void close() { numOpen--; }
}
