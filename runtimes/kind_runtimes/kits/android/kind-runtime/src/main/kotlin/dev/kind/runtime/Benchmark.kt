package dev.kind.runtime

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import org.json.JSONArray
import org.json.JSONObject
import java.time.Instant
import java.time.temporal.ChronoUnit

/**
 * Measures the programs of a bundle on the compute units of this device, in the JSON that `kind-bench import` reads.
 * Every unit is held against the bundle's whole golden trajectory first; those that draw something else are named with
 * the reason and not timed.
 *
 * Run it in a release build, on a cool device on its charger, with nothing else open.
 */
class Benchmark internal constructor(
    private val bundle: KindBundle,
    repeats: Int,
    warmup: Int,
    private val providers: (threads: Int?) -> List<Provider>,
) {
    private val stopwatch = Stopwatch(repeats, warmup)

    /**
     * The results.
     *
     * @param machine the fields of `machine`; on Android those of [describeDevice].
     * @param className null for the first class or, of a base, the learngene alone.
     * @param threads of the CPU: a case each; null for the engine's own choice.
     * @param units names of those to measure; null for all that there are.
     */
    suspend fun run(
        machine: JSONObject, className: String? = null, threads: List<Int?> = listOf(null), units: List<String>? = null,
    ): JSONObject = withContext(Dispatchers.Default) {
        val created = Instant.now().truncatedTo(ChronoUnit.SECONDS)
        val ladder = Ladder(bundle.manifest, Golden.of(bundle))
        val chosen = choose(providers(null), units)
        val checked = chosen.map { it to ladder.measure(it, bundle.manifest.steps) }
        val cases = checked.filter { (_, unit) -> unit.isTaken }.flatMap { (provider, unit) ->
            val counts = if (provider.kind == UnitKind.CPU) threads else listOf(null)
            counts.map { count -> measure(providers(count).first { it.name == unit.name }, unit, count, className) }
        }
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
            .put("units", JSONArray(checked.map { (_, unit) -> unit.toJson() }))
            .put("cases", JSONArray(cases))
    }

    private fun choose(offered: List<Provider>, units: List<String>?): List<Provider> {
        val unknown = units.orEmpty().filter { name -> offered.none { it.name.equals(name, ignoreCase = true) } }
        if (unknown.isNotEmpty()) {
            val held = offered.joinToString { it.name }
            throw KindException("there is no compute unit '${unknown.first()}' here", "This device offers $held.")
        }
        return offered.filter { units == null || units.any { name -> it.name.equals(name, ignoreCase = true) } }
    }

    private suspend fun measure(provider: Provider, unit: ComputeUnit, threads: Int?, className: String?): JSONObject {
        val baseline = memoryBytes("VmRSS")
        val start = System.nanoTime()
        return KindGenerator(bundle.manifest, provider.open(), unit).use { generator ->
            val loadMs = millisecondsSince(start)
            stopwatch.measure(generator, className)
                .put("runtime", provider.target)
                .put("precision", bundle.manifest.target(provider.target).precision)
                .put("threads", threads)
                .put("load_ms", JSONObject().put("first", unit.firstLoadMs ?: loadMs).put("again", loadMs))
                .put("peak_memory_bytes", memoryBytes("VmHWM"))
                .put("baseline_memory_bytes", baseline)
                .put("memory_measure", "VmHWM")
        }
    }
}
