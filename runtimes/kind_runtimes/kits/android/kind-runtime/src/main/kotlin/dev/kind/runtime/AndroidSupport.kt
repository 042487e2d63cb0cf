package dev.kind.runtime

import android.app.ActivityManager
import android.content.Context
import android.graphics.Bitmap
import android.os.Build
import android.os.PowerManager
import org.json.JSONObject
import java.io.File
import java.io.IOException

/**
 * The bundle that an app ships as the folder [name] of its assets.
 *
 * onnxruntime reads programs from files, so they are copied out of the package, once for each version of the app.
 */
fun KindBundle.Companion.fromAssets(context: Context, name: String): KindBundle {
    val installed = context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime
    val folder = context.noBackupFilesDir.resolve("kind/$name-$installed")
    synchronized(COPYING) { if (!folder.exists()) install(context, name, folder) }
    return open(folder)
}

/** Two threads that open a bundle at once copy it once. */
private val COPYING = Any()

private fun install(context: Context, name: String, folder: File) {
    // of this bundle alone: another's name may begin with its name
    val earlier = Regex(Regex.escape("$name-") + "\\d+(\\.partial)?")
    folder.parentFile?.listFiles { old -> earlier.matches(old.name) }?.forEach(File::deleteRecursively)
    val copy = File("$folder.partial")
    copyBundle(context, name, copy)
    if (!copy.renameTo(folder)) throw KindException("cannot rename $copy to $folder", "Start the app again.")
}

/** Where this app keeps which compute units draw right: until it, or the system with its drivers, is updated. */
fun UnitStore.Companion.of(context: Context): UnitStore {
    val installed = context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime
    return UnitStore(context.noBackupFilesDir.resolve("kind"), "$installed", Build.FINGERPRINT)
}

/** The picture for the screen. */
fun Picture.toBitmap(): Bitmap = Bitmap.createBitmap(argb, width, height, Bitmap.Config.ARGB_8888)

/** This device as the results of [Benchmark] describe it. */
fun describeDevice(context: Context): JSONObject {
    val memory = ActivityManager.MemoryInfo()
    context.getSystemService(ActivityManager::class.java).getMemoryInfo(memory)
    val power = context.getSystemService(PowerManager::class.java)
    return JSONObject()
        .put("system", "Android ${Build.VERSION.RELEASE}")
        .put("processor", if (Build.VERSION.SDK_INT >= 31) Build.SOC_MODEL else Build.HARDWARE)
        .put("model", "${Build.MANUFACTURER} ${Build.MODEL}")
        .put("num_cpus", Runtime.getRuntime().availableProcessors())
        .put("memory_bytes", memory.totalMem)
        .put("thermal_state", if (Build.VERSION.SDK_INT >= 29) thermalState(power) else null)
        .put("low_power_mode", power.isPowerSaveMode)
}

private fun thermalState(power: PowerManager) = when (power.currentThermalStatus) {
    PowerManager.THERMAL_STATUS_NONE -> "nominal"
    PowerManager.THERMAL_STATUS_LIGHT, PowerManager.THERMAL_STATUS_MODERATE -> "fair"
    PowerManager.THERMAL_STATUS_SEVERE -> "serious"
    else -> "critical"
}

private fun copyBundle(context: Context, name: String, target: File) {
    if (context.assets.list(name).isNullOrEmpty()) {
        throw KindException(
            "the app has no folder '$name' in its assets", "Copy the bundle's android/assets into app/src/main.",
        )
    }
    try {
        copyAssets(context, name, target)
    } catch (error: IOException) {
        target.deleteRecursively()
        throw KindException("cannot copy '$name' out of the app: ${error.message}", "Free some space here.", error)
    }
}

private fun copyAssets(context: Context, path: String, target: File) {
    val names = context.assets.list(path).orEmpty()
    if (names.isEmpty()) {
        context.assets.open(path).use { source -> target.outputStream().use(source::copyTo) }
        return
    }
    target.mkdirs()
    for (name in names) copyAssets(context, "$path/$name", target.resolve(name))
}
