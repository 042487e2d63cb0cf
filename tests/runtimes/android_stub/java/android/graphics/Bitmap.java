package android.graphics;

public final class Bitmap {
    public enum Config { ARGB_8888 }

    public final int[] colors;
    private final int width;

    private Bitmap(int[] colors, int width) {
        this.colors = colors;
        this.width = width;
    }

    public static Bitmap createBitmap(int[] colors, int width, int height, Config config) {
        if (colors.length < width * height) throw new ArrayIndexOutOfBoundsException();
        return new Bitmap(colors.clone(), width);
    }

    public int getWidth() { return width; }
}
