package android.os;

public class Build {
    public static final String HARDWARE = "shiba";
    public static final String SOC_MODEL = "Tensor G3";
    public static final String MANUFACTURER = "Google";
    public static final String MODEL = "Pixel 8";
    public static String FINGERPRINT = "google/shiba:15";

    public static class VERSION {
        public static int SDK_INT = 35;
        public static final String RELEASE = "15";
    }
}
