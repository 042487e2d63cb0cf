package dev.kind.runtime

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import org.json.JSONArray
import org.json.JSONObject
import java.io.File
import java.time.Instant
import java.time.temporal.ChronoUnit

/**
 * Measures the programs of a bundle on this device, in the JSON that `kind-bench import` reads.
 *
 * Run it in a release build, on a cool device on its charger, with nothing else open.
 */
class Benchmark(private val bundle: KindBundle, repeats: Int = 20, warmup: Int = 3) {
    private val stopwatch = Stopwatch(repeats, warmup)

    /**
     * The results.
     *
     * @param machine the fields of `machine`; on Android those of [describeDevice].
     * @param className null for the first class or, of a base, the learngene alone.
     * @param threads a case each; null for onnxruntime's own choice.
     */
    suspend fun run(machine: JSONObject, className: String? = null, threads: List<Int?> = listOf(null)): JSONObject =
        withContext(Dispatchers.Default) {
            val created = Instant.now().truncatedTo(ChronoUnit.SECONDS)
            val cases = threads.map { measure(it, className) }
            JSONObject()
                .put("format_version", 1)
                .put("kind", "measured")
                .put("made_by", "kind-runtime 0.1.0")
                .put("created", created.toString())
                .put(
                    "bundle",
                    JSONObject().put("name", bundle.manifest.name).put("manifest_sha256", bundle.manifestSha256),
                )
                .put("machine", machine)
                .put("cases", JSONArray(cases))
        }

    private suspend fun measure(threads: Int?, className: String?): JSONObject {
        val baseline = memoryBytes("VmRSS")
        val start = System.nanoTime()
        return bundle.openGenerator(threads).use { generator ->
            val loadMs = millisecondsSince(start)
            stopwatch.measure(generator, className)
                .put("threads", threads)
                .put("load_ms", JSONObject().put("first", loadMs))
                .put("peak_memory_bytes", memoryBytes("VmHWM"))
                .put("baseline_memory_bytes", baseline)
                .put("memory_measure", "VmHWM")
        }
    }
}

/** A figure of this process, from the kernel. */
private fun memoryBytes(field: String): Long? = File("/proc/self/status").takeIf(File::canRead)?.useLines { lines ->
    lines.firstOrNull { it.startsWith("$field:") }?.filter(Char::isDigit)?.toLong()?.times(1024)
}
