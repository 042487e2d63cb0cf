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

        fun put(unit: ComputeUnit) {
            units[unit.name] = unit
            attempts -= unit.name
            write()
        }

        /** They are checked anew at the next start. */
        fun forget(names: List<String>) {
            units -= names.toSet()
            write()
        }

        private fun read(json: JSONObject) {
            if (key.any { (name, value) -> json.optString(name) != value }) return
            val entries = json.getJSONArray("units")
            val known = List(entries.length()) { ComputeUnit.parse(entries.getJSONObject(it)) }
            json.getJSONObject("attempts").let { begun -> begun.keys().forEach { attempts[it] = begun.getInt(it) } }
            known.associateByTo(units, ComputeUnit::name)
        }

        private fun write() {
            val json = JSONObject(key)
                .put("units", JSONArray(units.values.map(ComputeUnit::toJson)))
                .put("attempts", JSONObject(attempts.toMap()))
            try {
                file?.parentFile?.mkdirs()
                val partial = File("${file ?: return}.partial")
                partial.writeText(json.toString())
                partial.renameTo(file)
            } catch (_: IOException) {
            }
        }
    }

    companion object // at the end: before a modifier it would take that for its name
}
