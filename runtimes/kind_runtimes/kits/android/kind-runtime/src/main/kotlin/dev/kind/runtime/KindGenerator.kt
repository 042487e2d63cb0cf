package dev.kind.runtime

import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.last
import kotlin.math.abs
import kotlin.math.round

/** What a picture looks like after [step] of [steps] steps; the last one is the picture. */
class Preview(val step: Int, val steps: Int, val picture: Picture)

/**
 * Draws pictures with the programs of a bundle. Several coroutines may use it at once; [close] it after the last.
 * Closing waits for the step under way; a drawing that is not done then fails with a [KindException].
 *
 * ```
 * val generator = KindBundle.open(folder).openGenerator()
 * generator.generate("panda", seed = 7u).collect { show(it.picture) }
 * ```
 *
 * @property unit what computes, and how it was found right.
 * @property refusedUnits those that come before it and draw something else or nothing, each with its reason.
 */
class KindGenerator internal constructor(
    val manifest: Manifest,
    internal val programs: Programs,
    val unit: ComputeUnit = ComputeUnit("CPU", UnitKind.CPU, "onnx", isTaken = true, reason = "not checked"),
    val refusedUnits: List<ComputeUnit> = emptyList(),
    private val dispatcher: CoroutineDispatcher = Dispatchers.Default,
) : AutoCloseable by programs {

    /**
     * Draws one picture of a class, by id or name, when it is collected; the same seed gives the same picture in every
     * runtime. Cancelling the collector stops before the next step.
     *
     * @param guidance null for the bundle's own, the only choice where it is built in; up to 100.
     * @param previewEvery steps between previews. Each costs a decode, which is next to nothing where latents are
     *   pixels; 0 for none but the last.
     */
    fun generate(className: String, seed: ULong, guidance: Float? = null, previewEvery: Int = 1): Flow<Preview> =
        draw(choose(className), seed, scale(guidance), previewEvery)

    /** Draws one picture of a base with [pack] attached; without one, the learngene alone. */
    fun generate(pack: Pack?, seed: ULong, guidance: Float? = null, previewEvery: Int = 1): Flow<Preview> =
        draw(attach(pack), seed, scale(guidance), previewEvery)

    private fun scale(guidance: Float?): Float {
        val builtIn = manifest.builtInGuidance
        if (guidance != null && builtIn != null) {
            throw KindException("guidance $builtIn is built in; another does not apply", "Leave it out.")
        }
        val scale = guidance ?: manifest.guidanceScale
        if (!(abs(scale) <= MAX_GUIDANCE)) { // also of NaN
            throw KindException("guidance is $scale, expected a finite number up to $MAX_GUIDANCE", "Leave it out.")
        }
        return scale
    }

    /** The inputs of `step` that say which class is drawn. */
    internal fun choose(className: String): Map<String, Tensor> {
        if (manifest.packBase != null) {
            throw KindException("the bundle is a base: its classes are packs", "Give a pack in place of '$className'.")
        }
        return mapOf("class_index" to Tensor.scalar(manifest.indexOfClass(className)))
    }

    internal fun attach(pack: Pack?): Map<String, Tensor> {
        if (pack == null && manifest.packBase == null) {
            val held = manifest.classes.joinToString { it.name }
            throw KindException("the bundle takes no packs: $held is built in", "Name a class in place of a pack.")
        }
        pack?.check(manifest)
        return Pack.inputs(pack, programs.spec.inputs)
    }

    private fun draw(choice: Map<String, Tensor>, seed: ULong, guidance: Float, previewEvery: Int): Flow<Preview> =
        flow {
            var state = start(seed)
            for (done in 1..manifest.steps) {
                currentCoroutineContext().ensureActive()
                state = step(done - 1, state + choice, guidance)
                val isLast = done == manifest.steps
                if (isLast && !state.getValue("latents").isFinite()) {
                    throw KindException(
                        "seed $seed gives numbers that are not finite at guidance $guidance", "Lower the guidance.",
                    )
                }
                if (isLast || previewEvery > 0 && done % previewEvery == 0) {
                    emit(Preview(done, manifest.steps, decode(state)))
                }
            }
        }.buffer(Channel.RENDEZVOUS).flowOn(dispatcher)

    /** What the first step begins with. */
    internal fun start(seed: ULong): Map<String, Tensor> =
        start(StartNoise.normals(seed, manifest.latentsShape.product()))

    /** The same from [noise] of unit variance, which is scaled in place. */
    internal fun start(noise: FloatArray): Map<String, Tensor> {
        val shape = manifest.latentsShape
        for (i in noise.indices) noise[i] *= manifest.initialNoiseScale
        val latents = mapOf("latents" to Tensor(noise, shape))
        return if (programs.spec.takes("history")) latents + ("history" to Tensor.zeros(shape)) else latents
    }

    /** The state after a step; outputs are called `next_latents`: no format lets one share its input's name. */
    internal fun step(index: Int, inputs: Map<String, Tensor>, guidance: Float): Map<String, Tensor> {
        val chosen = inputs + ("step_index" to Tensor.scalar(index))
        val unguided = programs.stepUnguided.takeUnless { manifest.isGuided(index) }
        val scaled = if (manifest.builtInGuidance == null) chosen + ("guidance" to Tensor.scalar(guidance)) else chosen
        val outputs = unguided?.let { programs.run(it, chosen) } ?: programs.run(programs.step, scaled)
        return outputs.mapKeys { it.key.removePrefix("next_") }
    }

    internal fun decode(state: Map<String, Tensor>): Picture {
        val image = programs.run(programs.decode, mapOf("latents" to state.getValue("latents"))).getValue("image")
        val (height, width) = image.shape.takeLast(2)
        val values = image.values
        fun level(channel: Int, i: Int) =
            round(values[channel * width * height + i].coerceIn(0f, 1f) * 255f).toInt()
        val argb = IntArray(width * height) { i ->
            0xFF shl 24 or (level(0, i) shl 16) or (level(1, i) shl 8) or level(2, i)
        }
        return Picture(width, height, argb)
    }

    private companion object {
        const val MAX_GUIDANCE = 100
    }
}

/** The finished picture. */
suspend fun Flow<Preview>.picture(): Picture = last().picture
