// LiteRT's Kotlin API as far as the kit uses it, for a Java machine: a program adds 1 to its latents, and a unit may fail.
package com.google.ai.edge.litert

enum class Accelerator { CPU, GPU, NPU }

class LiteRtException(message: String) : Exception(message)

class TensorBuffer : AutoCloseable {
    var floats = FloatArray(0)
    var integers = IntArray(0)
    var isClosed = false

    fun writeFloat(data: FloatArray) {
        floats = data
    }

    fun writeInt(data: IntArray) {
        integers = data
    }

    fun readFloat() = floats

    override fun close() {
        check(!isClosed)
        isClosed = true
        open.remove(this)
    }

    init {
        open += this
    }

    companion object {
        val open = mutableSetOf<TensorBuffer>()
    }
}

class CompiledModel private constructor(val path: String, val options: Options) : AutoCloseable {
    data class CpuOptions(val numThreads: Int? = null)

    class Options(vararg val accelerators: Accelerator) {
        var cpuOptions: CpuOptions? = null
    }

    fun createInputBuffer(inputName: String, signature: String? = null) = TensorBuffer().also { check(inputName != "") }

    fun createOutputBuffer(outputName: String, signature: String? = null): TensorBuffer {
        if (outputName == outOfMemoryAt) throw OutOfMemoryError()
        return TensorBuffer().also { check(outputName != "") }
    }

    fun run(inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>, signature: String? = null) {
        fault?.let { throw LiteRtException(it) }
        calls += signature.orEmpty() to inputs.mapValues { it.value.integers.toList() + it.value.floats.toList() }
        for ((name, buffer) in outputs) {
            val source = inputs.getValue(name.removePrefix("next_").takeIf { it in inputs } ?: "latents").floats
            buffer.floats = FloatArray(source.size) { if (name == "image") source[it] else source[it] + 1 }
        }
    }

    override fun close() {
        check(TensorBuffer.open.isEmpty()) { "a model is closed before its buffers" }
        models -= this
    }

    companion object {
        val models = mutableListOf<CompiledModel>()
        /** Why no program can be run, and the output that there is no memory for; null where all is well. */
        var fault: String? = null
        var outOfMemoryAt: String? = null
        val calls = mutableListOf<Pair<String, Map<String, List<Number>>>>()

        fun create(filePath: String, options: Options): CompiledModel {
            if (Accelerator.NPU in options.accelerators) throw LiteRtException("no such unit")
            return CompiledModel(filePath, options).also { models += it }
        }
    }
}
