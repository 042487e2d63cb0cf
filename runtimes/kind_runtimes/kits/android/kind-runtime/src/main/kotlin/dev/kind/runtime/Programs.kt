package dev.kind.runtime

import java.util.concurrent.locks.ReentrantReadWriteLock
import kotlin.concurrent.read
import kotlin.concurrent.write

/** An opened program: called with tensors by name, as the manifest describes them. */
internal interface Program : AutoCloseable {
    fun run(inputs: Map<String, Tensor>): Map<String, Tensor>
}

/**
 * The programs of a bundle, and how `step` is called.
 *
 * @property engine what runs them, in words, with its version.
 * @property stepUnguided for the steps without guidance, where `step` does not choose by itself.
 */
internal class Programs(
    val engine: String,
    val spec: Manifest.ProgramSpec,
    val step: Program,
    val decode: Program,
    val stepUnguided: Program? = null,
) : AutoCloseable {
    private val lock = ReentrantReadWriteLock()
    private var isClosed = false

    /** Runs one of the programs; throws a [KindException] once they are closed. */
    fun run(program: Program, inputs: Map<String, Tensor>): Map<String, Tensor> = lock.read {
        if (isClosed) throw KindException("the generator is closed", "Close it after the last drawing, or open another.")
        program.run(inputs)
    }

    /** Waits for the calls under way: engines free their memory at once, and a call that still reads it ends the app. */
    override fun close(): Unit = lock.write {
        if (!isClosed) listOfNotNull(step, decode, stepUnguided).forEach(Program::close)
        isClosed = true
    }
}
