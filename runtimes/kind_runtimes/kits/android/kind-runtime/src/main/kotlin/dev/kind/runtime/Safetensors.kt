package dev.kind.runtime

import org.json.JSONException
import org.json.JSONObject
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * A safetensors file: eight bytes of header length, the header in JSON, then the numbers.
 *
 * @param subject what the file is, for errors.
 * @param damaged what is thrown where the file is not whole.
 */
internal class Safetensors private constructor(
    private val header: JSONObject,
    private val body: ByteBuffer,
    private val subject: String,
    private val damaged: (Throwable?) -> KindException,
) {
    /** Names of the tensors. */
    val names: Set<String> = header.keys().asSequence().filter { it != METADATA }.toSet()

    /** A text of the file's metadata; empty where there is none of that name. */
    fun metadata(name: String): String = header.optJSONObject(METADATA)?.optString(name).orEmpty()

    /** A tensor stored as [dtype], `F16` or `F32`; every number must be finite. */
    fun read(name: String, dtype: String): Tensor = try {
        val entry = header.getJSONObject(name)
        val held = entry.getString("dtype")
        if (held != dtype) {
            throw KindException("$subject holds '$name' as $held, expected $dtype", "Download it again.")
        }
        read(entry, dtype)
    } catch (error: JSONException) {
        throw damaged(error)
    }

    private fun read(entry: JSONObject, dtype: String): Tensor {
        val shape = entry.getJSONArray("shape").ints()
        val (start, end) = entry.getJSONArray("data_offsets").ints().also { if (it.size != 2) throw damaged(null) }
        val width = if (dtype == "F16") Short.SIZE_BYTES else Float.SIZE_BYTES
        val isWhole = start in 0..end && end <= body.capacity() && end - start == width * shape.product()
        if (!isWhole) throw damaged(null)
        val values = FloatArray(shape.product()) {
            if (dtype == "F16") halfToFloat(body.getShort(start + width * it)) else body.getFloat(start + width * it)
        }
        if (!values.all(Float::isFinite)) throw damaged(null)
        return Tensor(values, shape)
    }

    companion object {
        private const val METADATA = "__metadata__"

        /** Reads the header of [bytes]; the numbers are read where they lie. */
        fun parse(bytes: ByteBuffer, subject: String, damaged: (Throwable?) -> KindException): Safetensors {
            val buffer = bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN)
            if (buffer.remaining() < Long.SIZE_BYTES) throw damaged(null)
            val length = buffer.getLong()
            if (length !in 0..buffer.remaining()) throw damaged(null)
            val header = ByteArray(length.toInt()).also(buffer::get)
            val body = buffer.slice().order(ByteOrder.LITTLE_ENDIAN)
            return try {
                Safetensors(JSONObject(header.decodeToString()), body, subject, damaged)
            } catch (error: JSONException) {
                throw damaged(error)
            }
        }
    }
}

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
