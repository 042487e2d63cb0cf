package dev.kind.runtime

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtProvider
import ai.onnxruntime.OrtSession
import ai.onnxruntime.OrtSession.SessionOptions
import ai.onnxruntime.providers.NNAPIFlags
import kotlinx.coroutines.ensureActive
import java.nio.IntBuffer
import java.util.EnumSet

/**
 * Opens the ONNX programs of a bundle on the first compute unit that draws what the eager model does, from the NPU down,
 * after checking that their files are the ones that were verified.
 *
 * @param threads null for onnxruntime's own choice; of the CPU only.
 * @param unit the name of the only unit to take: `QNN`, `QNN-GPU`, `NNAPI`, `XNNPACK` or `CPU`; checked like any other.
 * @param store keeps what was found between starts; without one, units are checked at each.
 */
suspend fun KindBundle.openGenerator(
    threads: Int? = null, unit: String? = null, store: UnitStore? = null,
): KindGenerator = opening {
    val bundle = this@openGenerator
    val notes = store?.open(manifestSha256) ?: UnitStore.Notes(null)
    Ladder(manifest, Golden.of(bundle), notes).open(onnxProviders(bundle, threads), unit) { ensureActive() }
}

/** [Benchmark] of the ONNX programs of a bundle, on every unit that onnxruntime offers here. */
fun Benchmark(bundle: KindBundle, repeats: Int = 20, warmup: Int = 3) =
    Benchmark(bundle, repeats, warmup) { threads -> onnxProviders(bundle, threads) }

/** The units that the app's build of onnxruntime offers, in the order of the ladder; the CPU is always one. */
internal fun onnxProviders(bundle: KindBundle, threads: Int?): List<Provider> {
    val offered = OrtEnvironment.getAvailableProviders()
    fun unit(name: String, kind: UnitKind, isHalf: Boolean = false, add: SessionOptions.() -> Unit) =
        OnnxProvider(bundle, name, kind, isHalf) { add() }
    val count = threads ?: Runtime.getRuntime().availableProcessors()
    return listOfNotNull(
        unit("QNN", UnitKind.NPU, isHalf = true) {
            addQnn(mapOf("backend_path" to "libQnnHtp.so", "enable_htp_fp16_precision" to "1"))
        }.takeIf { OrtProvider.QNN in offered },
        // what Android itself would compute on the CPU is no gain
        unit("NNAPI", UnitKind.NPU, isHalf = true) {
            addNnapi(EnumSet.of(NNAPIFlags.USE_FP16, NNAPIFlags.CPU_DISABLED))
        }.takeIf { OrtProvider.NNAPI in offered },
        unit("QNN-GPU", UnitKind.GPU, isHalf = true) { addQnn(mapOf("backend_path" to "libQnnGpu.so")) }
            .takeIf { OrtProvider.QNN in offered },
        unit("XNNPACK", UnitKind.CPU) {
            // it has threads of its own, which would wait for onnxruntime's
            setIntraOpNumThreads(1)
            addConfigEntry("session.intra_op.allow_spinning", "0")
            addXnnpack(mapOf("intra_op_num_threads" to "$count"))
        }.takeIf { OrtProvider.XNNPACK in offered },
        unit("CPU", UnitKind.CPU) { threads?.let(::setIntraOpNumThreads) },
    )
}

private class OnnxProvider(
    private val bundle: KindBundle,
    override val name: String,
    override val kind: UnitKind,
    override val isHalf: Boolean,
    private val configure: SessionOptions.() -> Unit,
) : Provider {
    override val target = "onnx"

    override fun open(): Programs {
        val specs = bundle.manifest.target(target).programs
        if ("decode" !in specs) {
            throw KindException("the bundle has no decode program: it makes latents", "Export it with a decoder.")
        }
        val opened = mutableMapOf<String, Program>()
        try {
            for ((program, spec) in specs) opened[program] = OnnxProgram(bundle, spec, configure)
        } catch (error: Throwable) {
            opened.values.forEach(Program::close)
            throw error
        }
        return Programs(
            engine = "onnxruntime ${OrtEnvironment.getEnvironment().version} on $name",
            spec = specs.getValue("step"),
            step = opened.getValue("step"),
            decode = opened.getValue("decode"),
            stepUnguided = opened["step_unguided"],
        )
    }
}

/** An ONNX program in onnxruntime. */
private class OnnxProgram(
    bundle: KindBundle,
    private val spec: Manifest.ProgramSpec,
    configure: SessionOptions.() -> Unit,
) : Program {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession

    init {
        val file = bundle.checked(spec.file)
        session = try {
            SessionOptions().use { options ->
                options.configure()
                environment.createSession(file.path, options)
            }
        } catch (error: OrtException) {
            throw KindException("onnxruntime cannot load ${spec.file}: ${error.message}", "Export it again.", error)
        }
    }

    override fun run(inputs: Map<String, Tensor>): Map<String, Tensor> {
        val tensors = mutableMapOf<String, OnnxTensor>()
        try {
            for (input in spec.inputs) tensors[input.name] = toOnnx(inputs.getValue(input.name), input)
            session.run(tensors).use { results ->
                return spec.outputs.associate { output ->
                    val values = (results[output.name].get() as OnnxTensor).floatBuffer
                    output.name to Tensor(FloatArray(values.remaining()).also { values.get(it) }, output.shape)
                }
            }
        } catch (error: OrtException) {
            throw KindException("onnxruntime cannot run ${spec.file}: ${error.message}", "Open the generator again.", error)
        } finally {
            tensors.values.forEach(OnnxTensor::close)
        }
    }

    override fun close() = session.close()

    private fun toOnnx(tensor: Tensor, spec: Manifest.TensorSpec): OnnxTensor {
        require(tensor.shape == spec.shape) { "${spec.name} takes ${spec.shape}, was given ${tensor.shape}" }
        val shape = LongArray(spec.shape.size) { spec.shape[it].toLong() }
        if (spec.dtype != "int32") return OnnxTensor.createTensor(environment, tensor.values, shape)
        val integers = tensor.toArray().map(Float::toInt).toIntArray()
        return OnnxTensor.createTensor(environment, IntBuffer.wrap(integers), shape)
    }
}
