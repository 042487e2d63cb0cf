package dev.kind.runtime

import org.json.JSONObject

/** What computes. The ladder is gone down in this order. */
enum class UnitKind { NPU, GPU, CPU }

/**
 * A compute unit as an engine offers it, and what came of holding it against the eager model's trajectory.
 *
 * @property name as the engine calls it: `QNN`, `NNAPI`, `XNNPACK`, `CPU`.
 * @property runtime the bundle's target that it runs.
 * @property isTaken whether it may draw.
 * @property psnrDb agreement of its latents with the eager model's; 200 for equality, -200 where they are not finite.
 * @property stepMs one step, the middle of those that were checked.
 * @property firstLoadMs opening the programs on it, which may compile them for the chip.
 * @property peakMemoryBytes the most memory that this process held up to then.
 * @property reason why it was refused or, of one that is taken, why it was not checked.
 */
class ComputeUnit internal constructor(
    val name: String,
    val kind: UnitKind,
    val runtime: String,
    val isTaken: Boolean,
    val steps: Int = 0,
    val psnrDb: Double? = null,
    val stepMs: Double? = null,
    val firstLoadMs: Double? = null,
    val peakMemoryBytes: Long? = null,
    val reason: String? = null,
) {
    override fun toString() = "$name (${kind.name})" + reason?.let { ": $it" }.orEmpty()

    /** As an entry of `units` in the results that `kind-bench import` reads; absent where a figure is not known. */
    internal fun toJson(): JSONObject = JSONObject()
        .put("name", name)
        .put("kind", kind.name.lowercase())
        .put("runtime", runtime)
        .put("is_taken", isTaken)
        .put("steps", steps)
        .put("psnr_db", psnrDb)
        .put("step_ms", stepMs)
        .put("first_load_ms", firstLoadMs)
        .put("peak_memory_bytes", peakMemoryBytes)
        .put("reason", reason)

    internal companion object {
        fun parse(json: JSONObject) = ComputeUnit(
            name = json.getString("name"),
            kind = UnitKind.valueOf(json.getString("kind").uppercase()),
            runtime = json.getString("runtime"),
            isTaken = json.getBoolean("is_taken"),
            steps = json.getInt("steps"),
            psnrDb = json.number("psnr_db"),
            stepMs = json.number("step_ms"),
            firstLoadMs = json.number("first_load_ms"),
            peakMemoryBytes = json.number("peak_memory_bytes")?.toLong(),
            reason = if (json.has("reason")) json.getString("reason") else null,
        )

        private fun JSONObject.number(name: String) = if (has(name)) getDouble(name) else null
    }
}
