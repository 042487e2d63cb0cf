package ai.onnxruntime;

import java.util.EnumSet;

public class OrtEnvironment implements AutoCloseable {
    /** What the app's build of onnxruntime offers. */
    public static EnumSet<OrtProvider> offered = EnumSet.of(OrtProvider.CPU);
    private static final OrtEnvironment ONE = new OrtEnvironment();

    public static OrtEnvironment getEnvironment() { return ONE; }

    public static EnumSet<OrtProvider> getAvailableProviders() { return offered.clone(); }

    public String getVersion() { return "1.27.0"; }

    public OrtSession createSession(String modelPath, OrtSession.SessionOptions options) throws OrtException {
        return new OrtSession(modelPath, options);
    }

    @Override
    public void close() {}
}
