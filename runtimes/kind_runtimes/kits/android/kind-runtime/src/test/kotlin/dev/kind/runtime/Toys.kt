package dev.kind.runtime

import org.json.JSONArray

/** The toy programs that the vectors were drawn with, see `tests/mobile_vectors.py`: the same sums in the same order. */
internal class ToyProgram(private val call: (Map<String, Tensor>) -> Map<String, Tensor>) : Program {
    override fun run(inputs: Map<String, Tensor>) = call(inputs)

    override fun close() = Unit
}

/**
 * @param decoded gets the latents of each decode.
 * @param spoil what a faulty unit makes of the latents of a step.
 */
internal fun toyPrograms(
    manifest: Manifest,
    decoded: MutableList<FloatArray> = mutableListOf(),
    spoilPicture: (Tensor) -> Tensor = { it },
    spoil: (Tensor) -> Tensor = { it },
): Programs {
    val specs = manifest.target("onnx").programs
    fun spoiling(step: (Map<String, Tensor>) -> Map<String, Tensor>) = ToyProgram { inputs ->
        step(inputs).mapValues { (name, value) -> if (name == "next_latents") spoil(value) else value }
    }
    val decode = ToyProgram { inputs ->
        decoded += inputs.getValue("latents").toArray()
        mapOf("image" to spoilPicture(inputs.getValue("latents").map { it * 0.5f + 0.5f }))
    }
    val unguided = specs["step_unguided"]?.let { spoiling(::unguidedStep) }
    return Programs("toy", specs.getValue("step"), spoiling(::step), decode, unguided)
}

private fun step(inputs: Map<String, Tensor>): Map<String, Tensor> {
    fun number(name: String, i: Int = 0) = inputs[name]?.values?.get(i) ?: 0f
    val index = number("step_index")
    val pack = number("modulation_coefficients", index.toInt().takeIf { "tailor" in inputs } ?: 0) *
        (inputs["modulation_basis"]?.values?.get(1) ?: 0f)
    val latents = inputs.getValue("latents").toArray()
    val history = inputs["history"]?.toArray()
    val aim = FloatArray(latents.size) {
        latents[it] * 0.5f + number("guidance") * 0.25f + number("class_index") * 0.125f + number("tailor") + pack
    }
    val next = FloatArray(latents.size) { aim[it] + (history?.get(it) ?: 0f) * 0.5f - index * 0.0625f }
    val shape = inputs.getValue("latents").shape
    val outputs = mapOf("next_latents" to Tensor(next, shape))
    return if (history == null) outputs
    else outputs + ("next_history" to Tensor(FloatArray(latents.size) { latents[it] - aim[it] }, shape))
}

private fun unguidedStep(inputs: Map<String, Tensor>): Map<String, Tensor> {
    val chosen = inputs.getValue("class_index").values[0] * 0.125f
    return mapOf("next_latents" to inputs.getValue("latents").map { it * 0.75f + chosen })
}

internal fun Tensor.map(transform: (Float) -> Float) = Tensor(toArray().map(transform).toFloatArray(), shape)

/** Left and right change places. */
internal fun Tensor.mirrored(): Tensor {
    val (values, width) = toArray() to shape.last()
    return Tensor(FloatArray(values.size) { values[it / width * width + width - 1 - it % width] }, shape)
}

internal fun JSONArray.floats() = FloatArray(length()) { getDouble(it).toFloat() }
