package dev.kind.runtime

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/**
 * Opens the LiteRT programs of a bundle on one unit, after checking that their files are the ones that were verified.
 * The app brings `com.google.ai.edge.litert:litert` itself.
 *
 * @param unit what runs all of it: without the CPU beside it, LiteRT refuses what the unit cannot run as a whole.
 * @param threads of the CPU; null for LiteRT's own choice.
 */
suspend fun KindBundle.openLiteRtGenerator(unit: Accelerator = Accelerator.CPU, threads: Int? = null): KindGenerator =
    withContext(Dispatchers.IO) {
        KindGenerator(manifest, openLiteRtPrograms(this@openLiteRtGenerator, unit, threads))
    }

internal fun openLiteRtPrograms(bundle: KindBundle, unit: Accelerator, threads: Int?): Programs {
    val specs = bundle.manifest.target("litert").programs
    if ("decode" !in specs) {
        throw KindException("the bundle has no decode program: it makes latents", "Export it with a decoder.")
    }
    val models = mutableMapOf<String, CompiledModel>()
    val opened = mutableMapOf<String, Program>()
    try {
        for ((name, spec) in specs) {
            // a step and its unguided twin are signatures of one file, which is compiled once
            val model = models.getOrPut(spec.file) { compile(bundle, spec, unit, threads) }
            opened[name] = LiteRtProgram(model, spec, signature = name)
        }
    } catch (error: Exception) {
        opened.values.forEach(Program::close)
        models.values.forEach(CompiledModel::close)
        throw error
    }
    // the models of all are closed after the program that is closed last
    val last = if ("step_unguided" in opened) "step_unguided" else "decode"
    opened[last] = Closing(opened.getValue(last), models.values.toList())
    return Programs(
        engine = "LiteRT on $unit",
        spec = specs.getValue("step"),
        step = opened.getValue("step"),
        decode = opened.getValue("decode"),
        stepUnguided = opened["step_unguided"],
    )
}

private fun compile(
    bundle: KindBundle, spec: Manifest.ProgramSpec, unit: Accelerator, threads: Int?,
): CompiledModel {
    val options = CompiledModel.Options(unit)
    if (threads != null) options.cpuOptions = CompiledModel.CpuOptions(numThreads = threads)
    try {
        return CompiledModel.create(bundle.checked(spec.file).path, options)
    } catch (error: LiteRtException) {
        throw KindException(
            "LiteRT cannot load ${spec.file} on $unit: ${error.message}", "Take another unit, or a newer LiteRT.", error,
        )
    }
}

/** A signature of a compiled model, with buffers of its own. */
private class LiteRtProgram(
    private val model: CompiledModel, private val spec: Manifest.ProgramSpec, private val signature: String,
) : Program {
    private val inputs: Map<String, TensorBuffer> =
        spec.inputs.associate { it.name to model.createInputBuffer(it.name, signature) }
    private val outputs: Map<String, TensorBuffer> =
        spec.outputs.associate { it.name to model.createOutputBuffer(it.name, signature) }

    // several coroutines may draw at once, but the buffers are one program's
    @Synchronized
    override fun run(inputs: Map<String, Tensor>): Map<String, Tensor> {
        for (input in spec.inputs) write(inputs.getValue(input.name), input)
        model.run(this.inputs, outputs, signature)
        return spec.outputs.associate { it.name to Tensor(outputs.getValue(it.name).readFloat(), it.shape) }
    }

    override fun close() = (inputs.values + outputs.values).forEach(TensorBuffer::close)

    private fun write(tensor: Tensor, spec: Manifest.TensorSpec) {
        require(tensor.shape == spec.shape) { "${spec.name} takes ${spec.shape}, was given ${tensor.shape}" }
        val buffer = inputs.getValue(spec.name)
        if (spec.dtype != "int32") return buffer.writeFloat(tensor.toArray())
        buffer.writeInt(tensor.toArray().map(Float::toInt).toIntArray())
    }
}

/** A program that closes models when it is closed. */
private class Closing(private val program: Program, private val models: List<CompiledModel>) : Program by program {
    override fun close() {
        program.close()
        models.forEach(CompiledModel::close)
    }
}
