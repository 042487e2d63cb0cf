package dev.kind.runtime

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
    override fun close() = listOfNotNull(step, decode, stepUnguided).forEach(Program::close)
}
