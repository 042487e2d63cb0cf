package android.content;

import android.app.ActivityManager;
import android.content.pm.PackageManager;
import android.content.res.AssetManager;
import android.os.PowerManager;
import java.io.File;

/** An app in two folders: what it ships and what it keeps. */
public class Context {
    private final File assets;
    private final File kept;
    public final PackageManager packageManager = new PackageManager();

    public Context(File assets, File kept) {
        this.assets = assets;
        this.kept = kept;
    }

    public Context() { this(null, null); }

    public PackageManager getPackageManager() { return packageManager; }

    public String getPackageName() { return "dev.kind.test"; }

    public File getNoBackupFilesDir() { return kept; }

    public AssetManager getAssets() { return new AssetManager(assets); }

    @SuppressWarnings("unchecked")
    public final <T> T getSystemService(Class<T> kind) {
        return (T) (kind == ActivityManager.class ? new ActivityManager() : new PowerManager());
    }
}
