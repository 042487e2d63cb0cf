package dev.kind.runtime

import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

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
        private const val METADATA = "__metadata__"
        private const val DTYPE = "F16"
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
            val (header, body) = split(ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN))
            val text = header.optJSONObject(METADATA)?.optString("pack").orEmpty()
            val metadata = try {
                JSONObject(text)
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
                    tensors = header.keys().asSequence().filter { it != METADATA }
                        .associateWith { tensor(it, header.getJSONObject(it), body) },
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

        /** safetensors: eight bytes of header length, the header in JSON, then the numbers. */
        private fun split(bytes: ByteBuffer): Pair<JSONObject, ByteBuffer> {
            if (bytes.remaining() < Long.SIZE_BYTES) throw damaged()
            val length = bytes.getLong()
            if (length !in 0..bytes.remaining()) throw damaged()
            val header = ByteArray(length.toInt()).also(bytes::get)
            val body = bytes.slice().order(ByteOrder.LITTLE_ENDIAN)
            return try {
                JSONObject(header.decodeToString()) to body
            } catch (error: JSONException) {
                throw damaged(error)
            }
        }

        private fun tensor(name: String, entry: JSONObject, body: ByteBuffer): Tensor {
            val dtype = entry.getString("dtype")
            if (dtype != DTYPE) {
                throw KindException("the pack holds '$name' as $dtype, expected $DTYPE", "Download it again.")
            }
            val shape = entry.getJSONArray("shape").ints()
            val (start, end) = entry.getJSONArray("data_offsets").ints().also { if (it.size != 2) throw damaged() }
            val isWhole = start in 0..end && end <= body.capacity() && end - start == 2 * shape.product()
            if (!isWhole) throw damaged()
            val values = FloatArray(shape.product()) { halfToFloat(body.getShort(start + 2 * it)) }
            if (!values.all(Float::isFinite)) throw damaged()
            return Tensor(values, shape)
        }

        private fun damaged(cause: Throwable? = null) =
            KindException("the file is not a whole pack", "Download it again.", cause)
    }
}

private val POINTER = "version https://git-lfs".encodeToByteArray()

/** Whether Git LFS left these few lines of text in a file's place. */
internal fun ByteArray.isPointer() = size >= POINTER.size && POINTER.indices.all { this[it] == POINTER[it] }

/** The number that 16 bits hold, exactly. */
internal fun halfToFloat(bits: Short): Float {
    val sign = (bits.toInt() and 0x8000) shl 16
    val exponent = bits.toInt() shr 10 and 0x1F
    val fraction = bits.toInt() and 0x3FF
    return when (exponent) {
        0 -> (if (sign == 0) 1f else -1f) * fraction / (1 shl 24)
        31 -> Float.fromBits(sign or 0x7F800000 or (fraction shl 13))
        else -> Float.fromBits(sign or (exponent + 112 shl 23) or (fraction shl 13))
    }
}
