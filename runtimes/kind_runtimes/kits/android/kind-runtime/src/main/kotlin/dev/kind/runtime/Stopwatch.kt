package dev.kind.runtime

import kotlinx.coroutines.flow.last
import org.json.JSONArray
import org.json.JSONObject

/** Times the programs of an opened bundle one call at a time: a `case` of the results, but for the runtime. */
internal class Stopwatch(private val repeats: Int, private val warmup: Int) {

    /**
     * A step with guidance, one without where the bundle has them, a decode and whole pictures.
     *
     * @param className null for the first class or, of a base, the learngene alone.
     */
    suspend fun measure(generator: KindGenerator, className: String? = null): JSONObject {
        val manifest = generator.manifest
        val name = className ?: manifest.classes[0].id
        val isBase = manifest.packBase != null && className == null
        val choice = if (isBase) generator.attach(null) else generator.choose(name)
        val pictures =
            if (isBase) generator.generate(pack = null, seed = 0u, previewEvery = 0)
            else generator.generate(name, seed = 0u, previewEvery = 0)
        val start = generator.start(seed = 0u)
        val (guided, unguided) = (0 until manifest.steps).partition(manifest::isGuided)
        fun step(index: Int) = generator.step(index, start + choice, manifest.guidanceScale)
        return JSONObject()
            .put("engine", generator.programs.engine)
            .put("provider", generator.unit.name)
            .put("process", "shared")
            .put("warmup", warmup)
            .put("step_ms", times { step(guided.firstOrNull() ?: 0) })
            .put("step_unguided_ms", unguided.firstOrNull()?.let { times { step(it) } })
            .put("decode_ms", times { generator.decode(start) })
            .put("whole_image_ms", times { pictures.last() })
    }

    private inline fun times(call: () -> Unit): JSONObject {
        repeat(warmup) { call() }
        val samples = List(repeats) {
            val start = System.nanoTime()
            call()
            millisecondsSince(start)
        }
        return JSONObject().put("samples", JSONArray(samples))
    }
}

internal fun millisecondsSince(start: Long) = (System.nanoTime() - start) / 1e6
