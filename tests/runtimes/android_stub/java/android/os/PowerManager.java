package android.os;

public final class PowerManager {
    public static final int THERMAL_STATUS_NONE = 0;
    public static final int THERMAL_STATUS_LIGHT = 1;
    public static final int THERMAL_STATUS_MODERATE = 2;
    public static final int THERMAL_STATUS_SEVERE = 3;
    public static int status = THERMAL_STATUS_NONE;

    public int getCurrentThermalStatus() { return status; }

    public boolean isPowerSaveMode() { return false; }
}
