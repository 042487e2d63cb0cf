package dev.kind.runtime

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import kotlinx.coroutines.ensureActive

/**
 * Opens the LiteRT programs of a bundle on the first unit that draws what the eager model does, from the NPU down, after
 * checking that their files are the ones that were verified. The app brings `com.google.ai.edge.litert:litert` itself.
 *
 * @param unit the only one to take, checked like any other. Without the CPU beside it, LiteRT refuses what it cannot run
 *   as a whole.
 * @param threads of the CPU; null for LiteRT's own choice.
 * @param store keeps what was found between starts; without one, units are checked at each.
 */
suspend fun KindBundle.openLiteRtGenerator(
    unit: Accelerator? = null, threads: Int? = null, store: UnitStore? = null,
): KindGenerator = opening {
    val bundle = this@openLiteRtGenerator
    val notes = store?.open(manifestSha256) ?: UnitStore.Notes(null)
    val providers = liteRtProviders(bundle, threads)
    Ladder(manifest, Golden.of(bundle), notes).open(providers, unit?.let(::nameOf)) { ensureActive() }
}

/** [Benchmark] of the LiteRT programs of a bundle, on every unit. */
fun LiteRtBenchmark(bundle: KindBundle, repeats: Int = 20, warmup: Int = 3) =
    Benchmark(bundle, repeats, warmup) { threads -> liteRtProviders(bundle, threads) }

internal fun liteRtProviders(bundle: KindBundle, threads: Int?): List<Provider> =
    listOf(Accelerator.NPU, Accelerator.GPU, Accelerator.CPU).map { LiteRtProvider(bundle, it, threads) }

private fun nameOf(unit: Accelerator) = "LiteRT-$unit"

private class LiteRtProvider(
    private val bundle: KindBundle, private val unit: Accelerator, private val threads: Int?,
) : Provider {
    override val name = nameOf(unit)
    override val kind = UnitKind.valueOf(unit.name)
    override val target = "litert"
    override val isHalf = unit != Accelerator.CPU

    override fun open() = openLiteRtPrograms(bundle, unit, threads.takeIf { unit == Accelerator.CPU })
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
    } catch (error: Throwable) { // a driver's library that is not there is an Error
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
    private val buffers = mutableListOf<TensorBuffer>()
    private val inputs = createAll(spec.inputs) { model.createInputBuffer(it, signature) }
    private val outputs = createAll(spec.outputs) { model.createOutputBuffer(it, signature) }

    // several coroutines may draw at once, but the buffers are one program's
    @Synchronized
    override fun run(inputs: Map<String, Tensor>): Map<String, Tensor> {
        try {
            for (input in spec.inputs) write(inputs.getValue(input.name), input)
            model.run(this.inputs, outputs, signature)
        } catch (error: LiteRtException) {
            throw KindException("LiteRT cannot run ${spec.file}: ${error.message}", "Open the generator again.", error)
        }
        return spec.outputs.associate { it.name to Tensor(outputs.getValue(it.name).readFloat(), it.shape) }
    }

    override fun close() = buffers.forEach(TensorBuffer::close)

    private fun createAll(specs: List<Manifest.TensorSpec>, create: (String) -> TensorBuffer) = try {
        specs.associate { it.name to create(it.name).also(buffers::add) }
    } catch (error: Throwable) {
        close()
        throw error
    }

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
