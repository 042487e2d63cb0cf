package dev.kind.runtime

import java.nio.ByteBuffer
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/**
 * The eager model's trajectory that a bundle brings along: of its first class or, of a base, of the learngene alone.
 *
 * @property latents the scaled start noise and what each step makes of it.
 * @property image red, green and blue planes from 0 to 1; null where the bundle makes latents.
 */
internal class Golden private constructor(
    private val noise: FloatArray,
    private val latents: List<FloatArray>,
    private val image: FloatArray?,
) {
    /** What a unit made of it: latents after the worst step; milliseconds of each. */
    class Agreement(val latentsDb: Double, val pictureDb: Double?, val stepsMs: List<Double>)

    /** Runs the first [steps] steps of the trajectory, the worst counts, and decodes the eager model's last latents. */
    fun hold(generator: KindGenerator, steps: Int): Agreement {
        val manifest = generator.manifest
        val choice =
            if (manifest.packBase != null) generator.attach(null) else generator.choose(manifest.classes[0].id)
        var state = generator.start(noise.copyOf())
        var latentsDb = MAX_DB
        val stepsMs = List(steps) { index ->
            val start = System.nanoTime()
            state = generator.step(index, state + choice, manifest.guidanceScale)
            millisecondsSince(start).also {
                latentsDb = min(latentsDb, psnrDb(latents[index + 1], state.getValue("latents").toArray()))
            }
        }
        return Agreement(latentsDb, image?.let { pictureDb(generator, it) }, stepsMs)
    }

    private fun pictureDb(generator: KindGenerator, expected: FloatArray): Double {
        val last = mapOf("latents" to Tensor(latents.last(), generator.manifest.latentsShape))
        val argb = generator.decode(last).argb
        val levels = FloatArray(3 * argb.size) { i -> (argb[i % argb.size] shr (16 - 8 * (i / argb.size)) and 0xFF) / 255f }
        return psnrDb(expected, levels, peak = 1.0)
    }

    companion object {
        const val FILE = "golden.safetensors"
        private const val FEW = 3

        /** The golden data of an opened bundle; null where it brings none, as bundles of old and those cut down. */
        fun of(bundle: KindBundle): Golden? {
            if (FILE !in bundle.manifest.files || !bundle.folder.resolve(FILE).isFile) return null
            return read(ByteBuffer.wrap(bundle.checked(FILE).readBytes()), bundle.manifest)
        }

        fun read(bytes: ByteBuffer, manifest: Manifest): Golden {
            val file = Safetensors.parse(bytes, FILE, ::damaged)
            val index = if (manifest.packBase == null) 0 else manifest.numPacks
            val size = manifest.latentsShape.product()
            val noise = file.read("$index.noise", "F32").toArray()
            val all = file.read("$index.latents", "F32").toArray()
            if (noise.size != size || all.size != (manifest.steps + 1) * size) throw damaged(null)
            val latents = List(manifest.steps + 1) { all.copyOfRange(it * size, (it + 1) * size) }
            val image = "$index.image".takeIf(file.names::contains)?.let { file.read(it, "F32").toArray() }
            return Golden(noise, latents, image)
        }

        /** A few steps, and as many as it takes to have run one with guidance and one without. */
        fun fewSteps(manifest: Manifest): Int {
            val firsts = (0 until manifest.steps).groupBy(manifest::isGuided).values.map { it.first() }
            return min(manifest.steps, max(FEW, firsts.max() + 1))
        }

        private fun damaged(cause: Throwable?) =
            KindException("$FILE is not that of this bundle", "Copy or export the bundle again.", cause)
    }
}

/**
 * Peak signal-to-noise ratio; 200 for equality, -200 for numbers that are not finite.
 *
 * @param peak the known range, 1 of a picture; without one it is that of [expected], as latents have no other.
 */
internal fun psnrDb(expected: FloatArray, actual: FloatArray, peak: Double? = null): Double {
    if (actual.size != expected.size || !actual.all(Float::isFinite)) return -MAX_DB
    val range = peak ?: (expected.max().toDouble() - expected.min())
    val squares = expected.indices.sumOf { i -> (expected[i].toDouble() - actual[i]).let { it * it } }
    val error = sqrt(squares / expected.size)
    return when {
        error == 0.0 -> MAX_DB
        range == 0.0 -> -MAX_DB
        else -> (20 * log10(range / error)).coerceIn(-MAX_DB, MAX_DB)
    }
}

internal const val MAX_DB = 200.0
