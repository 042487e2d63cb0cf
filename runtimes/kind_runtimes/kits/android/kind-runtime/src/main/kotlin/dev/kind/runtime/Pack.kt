package dev.kind.runtime

import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

/** One class as a download: a safetensors file that attaches to the base it was made for. */
class Pack private constructor(val info: ClassInfo, private val base: String, private val tensors: Map<String, Tensor>) {

    /** Throws a [KindException] unless the pack was made for the base of this bundle. */
    internal fun check(manifest: Manifest) {
        val wanted = manifest.packBase ?: throw KindException(
            "the bundle takes no packs: ${manifest.classes.joinToString { it.name }} is built in",
            "Export a base with --packs.",
        )
        if (base != wanted) {
            throw KindException(
                "the pack is for base ${base.take(12)}..., this bundle is base ${wanted.take(12)}...",
                "Take the pack that was exported for this base, or update the app.",
            )
        }
    }

    companion object {
        const val FORMAT_VERSION = 1
        private val INPUTS = setOf("tailor", "modulation_basis", "modulation_coefficients")

        /** Reads a pack; throws a [KindException] for what is missing, damaged, newer or no pack. */
        fun read(file: File): Pack = try {
            read(file.readBytes())
        } catch (error: IOException) {
            throw KindException("there is no pack at $file", "Download it.", error)
        }

        /** Reads the bytes of a pack. */
        fun read(bytes: ByteArray): Pack {
            if (bytes.isPointer()) {
                throw KindException("the file is a Git LFS pointer, not the pack", "Download the file itself.")
            }
            val file = Safetensors.parse(ByteBuffer.wrap(bytes), "the pack", ::damaged)
            val metadata = try {
                JSONObject(file.metadata("pack"))
            } catch (error: JSONException) {
                val hint = "Make one with kind-export."
                throw KindException("the file is no pack: its metadata says nothing of one", hint, error)
            }
            val version = metadata.optInt("format_version")
            if (version > FORMAT_VERSION) {
                throw KindException(
                    "the pack has format_version $version, this app reads up to $FORMAT_VERSION", "Update kind-runtime.",
                )
            }
            return try {
                Pack(
                    info = Manifest.parseClass(metadata.getJSONObject("class")),
                    base = metadata.getString("base"),
                    tensors = file.names.associateWith { file.read(it, "F16") },
                )
            } catch (error: JSONException) {
                throw damaged(error)
            }
        }

        /** The inputs of [specs] that a pack fills: its tensors, or zeros for the learngene alone. */
        internal fun inputs(pack: Pack?, specs: List<Manifest.TensorSpec>): Map<String, Tensor> =
            specs.filter { it.name in INPUTS }.associate { spec ->
                val tensor = if (pack == null) Tensor.zeros(spec.shape) else pack.tensors[spec.name]
                if (tensor?.shape != spec.shape) {
                    val held = tensor?.let { "shape ${it.shape}" } ?: "nothing"
                    throw KindException(
                        "the pack holds $held as '${spec.name}', the base takes ${spec.shape}", "Download it again.",
                    )
                }
                spec.name to tensor
            }

        private fun damaged(cause: Throwable? = null) =
            KindException("the file is not a whole pack", "Download it again.", cause)
    }
}

private val POINTER = "version https://git-lfs".encodeToByteArray()

/** Whether Git LFS left these few lines of text in a file's place. */
internal fun ByteArray.isPointer() = size >= POINTER.size && POINTER.indices.all { this[it] == POINTER[it] }
