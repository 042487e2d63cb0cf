package dev.kind.runtime

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** A class that a bundle draws: a stable id and its names, the best one first. */
data class ClassInfo(val id: String, val names: List<String>) {
    val name: String get() = names.firstOrNull() ?: id

    /** All names, as a folder of the class is called. */
    internal val fullName: String get() = names.joinToString(", ")
}

/**
 * `manifest.json` of a bundle: what it draws and how its programs are called.
 *
 * @property classes in the order of `class_index`; of a base, those of its packs.
 * @property guidedSteps the steps with guidance, where it is not all of them.
 * @property builtInGuidance what a model that draws in few steps holds; its programs take no other.
 * @property packBase of a base, which holds no class itself: the hash that its packs carry.
 */
class Manifest private constructor(
    val name: String,
    val classes: List<ClassInfo>,
    val steps: Int,
    val guidanceScale: Float,
    val guidedSteps: Set<Int>?,
    val builtInGuidance: Float?,
    val initialNoiseScale: Float,
    val latentsShape: List<Int>,
    val packBase: String?,
    internal val numPacks: Int,
    internal val targets: Map<String, TargetSpec>,
    internal val files: Map<String, String>,
) {
    /** @property thresholdDb what the export was held to, over whole trajectories. */
    internal class TargetSpec(val precision: String, val thresholdDb: Double, val programs: Map<String, ProgramSpec>)

    internal class ProgramSpec(val file: String, val inputs: List<TensorSpec>, val outputs: List<TensorSpec>) {
        fun takes(input: String) = inputs.any { it.name == input }
    }

    internal class TensorSpec(val name: String, val shape: List<Int>, val dtype: String)

    /** Whether guidance is on in a step; without it the class is predicted alone. */
    internal fun isGuided(step: Int) = guidedSteps == null || step in guidedSteps

    internal fun target(name: String): TargetSpec = targets[name] ?: throw KindException(
        "the bundle holds no $name programs, only ${targets.keys.sorted().joinToString()}",
        "Export it with --target $name.",
    )

    companion object {
        const val FORMAT_VERSION = 2
        const val NOISE_GENERATOR = "philox4x32-10+box-muller/1"
        private const val MAX_STEPS = 10_000
        private const val MAX_NUMBERS = 1 shl 28

        /** Reads the text of `manifest.json`; throws a [KindException] where it is damaged or newer than this library. */
        fun parse(text: String): Manifest = try {
            val json = JSONObject(text)
            val version = json.getInt("format_version")
            if (version > FORMAT_VERSION) {
                throw KindException(
                    "manifest.json has format_version $version, this app reads up to $FORMAT_VERSION",
                    "Update kind-runtime.",
                )
            }
            parse(json)
        } catch (error: JSONException) {
            throw KindException("manifest.json does not fit: ${error.message}", "Export the bundle again.", error)
        }

        private fun parse(json: JSONObject): Manifest {
            val generator = json.getString("noise_generator")
            if (generator != NOISE_GENERATOR) {
                throw KindException("unknown noise generator '$generator'", "Update kind-runtime.")
            }
            val manifest = Manifest(
                name = json.getString("name"),
                classes = json.getJSONArray("classes").objects().map(::parseClass),
                steps = json.getInt("steps"),
                guidanceScale = json.getDouble("guidance_scale").toFloat(),
                guidedSteps = json.optJSONArray("guided_steps")?.ints()?.toSet(),
                builtInGuidance = json.optJSONObject("distillation")?.getDouble("guidance_scale")?.toFloat(),
                initialNoiseScale = json.getDouble("initial_noise_scale").toFloat(),
                latentsShape = json.getJSONArray("latents_shape").ints(),
                packBase = if (json.has("pack_base")) json.getString("pack_base") else null,
                numPacks = json.optJSONArray("packs")?.length() ?: 0,
                targets = json.getJSONObject("targets").map(::parseTarget),
                files = json.getJSONObject("files").map { it.getString("sha256") },
            )
            with(manifest) {
                val numbers = latentsShape.fold(1.0) { product, length -> product * length } // which overflows nothing
                val isSane = steps in 1..MAX_STEPS && latentsShape.all { it >= 1 } && numbers <= MAX_NUMBERS
                if (!isSane || classes.isEmpty() || latentsShape.size != 4) {
                    throw KindException(
                        "manifest.json has $steps steps, ${classes.size} classes and latents of shape $latentsShape",
                        "Export the bundle again.",
                    )
                }
            }
            return manifest
        }

        internal fun parseClass(json: JSONObject) = ClassInfo(
            id = json.getString("id"),
            names = json.getJSONArray("names").let { names -> List(names.length(), names::getString) },
        )

        private fun parseTarget(json: JSONObject) = TargetSpec(
            precision = json.getString("precision"),
            thresholdDb = json.getJSONObject("parity").getDouble("threshold_db"),
            programs = json.getJSONObject("programs").map(::parseProgram),
        )

        private fun parseProgram(json: JSONObject) = ProgramSpec(
            file = json.getString("file"),
            inputs = json.getJSONArray("inputs").objects().map(::parseTensor),
            outputs = json.getJSONArray("outputs").objects().map(::parseTensor),
        )

        private fun parseTensor(json: JSONObject) =
            TensorSpec(json.getString("name"), json.getJSONArray("shape").ints(), json.getString("dtype"))
    }
}

internal fun JSONArray.ints() = List(length(), ::getInt)

private fun JSONArray.objects() = List(length(), ::getJSONObject)

private fun <T> JSONObject.map(parse: (JSONObject) -> T): Map<String, T> =
    keys().asSequence().associateWith { parse(getJSONObject(it)) }
