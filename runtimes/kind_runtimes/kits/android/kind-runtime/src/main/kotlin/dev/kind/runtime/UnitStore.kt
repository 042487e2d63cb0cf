package dev.kind.runtime

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.io.IOException

/**
 * Where it is kept between starts of an app which compute units draw right. What was found counts for one version of
 * the app, of the system (whose drivers come with it) and of the bundle; after a change of any, units are checked again.
 *
 * @param folder where the app keeps data that need no backup.
 * @param systemVersion must change when the system is updated: on Android `Build.FINGERPRINT`.
 */
class UnitStore(private val folder: File, private val appVersion: String, private val systemVersion: String) {

    internal fun open(manifestSha256: String): Notes = Notes(
        folder.resolve("units-${manifestSha256.take(16)}.json"),
        mapOf("app_version" to appVersion, "system_version" to systemVersion, "bundle_sha256" to manifestSha256),
    )

    /** What is known of a bundle's units here. A file that cannot be read or written costs a check, nothing else. */
    internal class Notes(private val file: File?, private val key: Map<String, String> = emptyMap()) {
        private val units = mutableMapOf<String, ComputeUnit>()
        private val attempts = mutableMapOf<String, Int>()
        private val failures = mutableMapOf<String, Failures>()

        init {
            try {
                file?.takeIf(File::isFile)?.let { read(JSONObject(it.readText())) }
            } catch (_: IOException) {
            } catch (_: JSONException) {
            } catch (_: IllegalArgumentException) {
            }
        }

        operator fun get(name: String): ComputeUnit? = units[name]

        /** How often checking a unit began and neither ended nor failed: the process died of it, or was ended. */
        fun attempts(name: String): Int = attempts[name] ?: 0

        /** Called before a unit is opened, so that the next start knows of it if this one ends here. */
        fun begin(name: String) {
            attempts[name] = attempts(name) + 1
            write()
        }

        /**
         * Whether a unit that is refused is tried again: where it gave nothing, not even something wrong, the phone may
         * have been busy or the app in the background. A day later that has passed; of what fails again it is not why.
         */
        fun isDue(name: String, nowMs: Long): Boolean {
            val last = failures[name] ?: return false
            // of a clock that was set back nothing is known
            return last.times < MAX_FAILURES && nowMs - last.atMs !in 0 until PATIENCE_MS
        }

        /** @param failedAtMs the time where it is refused because it gave nothing, milliseconds since 1970. */
        fun put(unit: ComputeUnit, failedAtMs: Long? = null) {
            units[unit.name] = unit
            attempts -= unit.name
            val times = failures.remove(unit.name)?.times ?: 0
            if (failedAtMs != null) failures[unit.name] = Failures(times + 1, failedAtMs)
            write()
        }

        /** They are checked anew at the next start; which ones failed stays known. */
        fun forget(names: List<String>) {
            units -= names.toSet()
            write()
        }

        private fun read(json: JSONObject) {
            if (key.any { (name, value) -> json.optString(name) != value }) return
            val entries = json.getJSONArray("units")
            val known = List(entries.length()) { ComputeUnit.parse(entries.getJSONObject(it)) }
            // of earlier versions it is not there, and they pass it over
            json.optJSONObject("failures")?.let { all ->
                all.keys().forEach { failures[it] = Failures.parse(all.getJSONObject(it)) }
            }
            json.getJSONObject("attempts").let { begun -> begun.keys().forEach { attempts[it] = begun.getInt(it) } }
            known.associateByTo(units, ComputeUnit::name)
        }

        private fun write() {
            val json = JSONObject(key)
                .put("units", JSONArray(units.values.map(ComputeUnit::toJson)))
                .put("attempts", JSONObject(attempts.toMap()))
                .put("failures", JSONObject(failures.mapValues { (_, last) -> last.toJson() }))
            try {
                file?.parentFile?.mkdirs()
                val partial = File("${file ?: return}.partial")
                partial.writeText(json.toString())
                partial.renameTo(file)
            } catch (_: IOException) {
            }
        }
    }

    /** How many times in a row a unit gave nothing, and when the last was. */
    private class Failures(val times: Int, val atMs: Long) {
        fun toJson(): JSONObject = JSONObject().put("times", times).put("at_ms", atMs)

        companion object {
            fun parse(json: JSONObject) = Failures(json.getInt("times"), json.getLong("at_ms"))
        }
    }

    companion object {
        private const val MAX_FAILURES = 2
        private const val PATIENCE_MS = 24 * 3_600_000L
    }
}
