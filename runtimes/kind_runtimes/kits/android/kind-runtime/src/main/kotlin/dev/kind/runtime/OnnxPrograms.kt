package dev.kind.runtime

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import java.nio.IntBuffer

/**
 * Opens the ONNX programs of a bundle, after checking that their files are the ones that were verified.
 *
 * @param threads null for onnxruntime's own choice.
 */
suspend fun KindBundle.openGenerator(threads: Int? = null): KindGenerator = withContext(Dispatchers.IO) {
    KindGenerator(manifest, openOnnxPrograms(this@openGenerator, threads))
}

private fun openOnnxPrograms(bundle: KindBundle, threads: Int?): Programs {
    val specs = bundle.manifest.target("onnx").programs
    if ("decode" !in specs) {
        throw KindException("the bundle has no decode program: it makes latents", "Export it with a decoder.")
    }
    val opened = mutableMapOf<String, Program>()
    try {
        for ((name, spec) in specs) opened[name] = OnnxProgram(bundle, spec, threads)
    } catch (error: Exception) {
        opened.values.forEach(Program::close)
        throw error
    }
    return Programs(
        engine = "onnxruntime ${OrtEnvironment.getEnvironment().version} on CPU",
        spec = specs.getValue("step"),
        step = opened.getValue("step"),
        decode = opened.getValue("decode"),
        stepUnguided = opened["step_unguided"],
    )
}

/** An ONNX program in onnxruntime. */
private class OnnxProgram(bundle: KindBundle, private val spec: Manifest.ProgramSpec, threads: Int?) : Program {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession

    init {
        val file = bundle.checked(spec.file)
        session = try {
            OrtSession.SessionOptions().use { options ->
                threads?.let(options::setIntraOpNumThreads)
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
