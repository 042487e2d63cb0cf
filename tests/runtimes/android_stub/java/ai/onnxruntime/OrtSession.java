package ai.onnxruntime;

import ai.onnxruntime.providers.NNAPIFlags;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** A session that asks {@link #program} what its file computes. */
public class OrtSession implements AutoCloseable {
    /** Computes outputs by name: of the file's name, the way the session was opened, and inputs by name. */
    public interface Program {
        Map<String, float[]> run(String file, String unit, Map<String, float[]> inputs);
    }

    public static Program program;
    public static final List<OrtSession> open = new ArrayList<>();
    public final String file;
    public final SessionOptions options;

    OrtSession(String path, SessionOptions options) throws OrtException {
        this.file = path.substring(path.lastIndexOf('/') + 1);
        this.options = options;
        if (options.fault != null) throw new OrtException(options.fault);
        open.add(this);
    }

    public Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException {
        Map<String, float[]> given = new HashMap<>();
        inputs.forEach((name, value) -> {
            OnnxTensor tensor = (OnnxTensor) value;
            float[] numbers = tensor.floats;
            if (numbers == null) {
                numbers = new float[tensor.integers.length];
                for (int i = 0; i < numbers.length; i++) numbers[i] = tensor.integers[i];
            }
            given.put(name, numbers);
        });
        Map<String, OnnxTensor> results = new HashMap<>();
        for (Map.Entry<String, float[]> one : program.run(file, options.unit, given).entrySet()) {
            results.put(one.getKey(), new OnnxTensor(one.getValue(), null, new long[] {one.getValue().length}));
        }
        return new Result(results);
    }

    @Override
    public void close() throws OrtException { open.remove(this); }

    public static class Result implements AutoCloseable {
        private final Map<String, OnnxTensor> values;

        Result(Map<String, OnnxTensor> values) { this.values = values; }

        public Optional<OnnxValue> get(String key) { return Optional.ofNullable(values.get(key)); }

        @Override
        public void close() { values.values().forEach(OnnxTensor::close); }
    }

    public static class SessionOptions implements AutoCloseable {
        /** Why sessions with QNN cannot be opened; null where they can. */
        public static String qnnFault;
        public static int numOpen = 0;
        public String unit = "CPU";
        public int threads = 0;
        public Map<String, String> provider = Map.of();
        String fault;

        public SessionOptions() { numOpen++; }

        public void addQnn(Map<String, String> options) throws OrtException {
            boolean isGpu = options.get("backend_path").equals("libQnnGpu.so");
            take(OrtProvider.QNN, isGpu ? "QNN-GPU" : "QNN", options);
            fault = qnnFault;
        }

        public void addNnapi(EnumSet<NNAPIFlags> flags) throws OrtException {
            take(OrtProvider.NNAPI, "NNAPI", Map.of("flags", flags.toString()));
        }

        public void addXnnpack(Map<String, String> options) throws OrtException {
            take(OrtProvider.XNNPACK, "XNNPACK", options);
        }

        public void setIntraOpNumThreads(int count) throws OrtException { threads = count; }

        public void addConfigEntry(String key, String value) throws OrtException {}

        @Override
        public void close() { numOpen--; }

        private void take(OrtProvider wanted, String name, Map<String, String> options) throws OrtException {
            if (!OrtEnvironment.offered.contains(wanted)) throw new OrtException(name + " is not in this build");
            unit = name;
            provider = options;
        }
    }
}
