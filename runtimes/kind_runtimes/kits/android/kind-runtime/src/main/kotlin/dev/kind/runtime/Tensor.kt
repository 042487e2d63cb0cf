package dev.kind.runtime

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * Numbers in C order, outside the Java heap so that a runtime reads them where they are. A program's integer inputs are
 * numbers too: the manifest says what they become.
 */
internal class Tensor private constructor(val shape: List<Int>, private val buffer: FloatBuffer) {
    /** A view with a position of its own. */
    val values: FloatBuffer get() = buffer.duplicate()

    constructor(values: FloatArray, shape: List<Int>) : this(shape, direct(values.size).also { it.put(values).rewind() }) {
        require(values.size == shape.product()) { "${values.size} numbers do not fill $shape" }
    }

    fun isFinite() = toArray().all(Float::isFinite)

    fun toArray() = FloatArray(buffer.capacity()).also { values.get(it) }

    companion object {
        fun zeros(shape: List<Int>) = Tensor(shape, direct(shape.product()))

        fun scalar(value: Number) = Tensor(floatArrayOf(value.toFloat()), listOf(1))

        private fun direct(count: Int) =
            ByteBuffer.allocateDirect(count * Float.SIZE_BYTES).order(ByteOrder.nativeOrder()).asFloatBuffer()
    }
}

internal fun List<Int>.product() = fold(1, Int::times)

/** A drawn picture: a color a pixel as Android packs it (0xAARRGGBB), row by row from the top. */
class Picture(val width: Int, val height: Int, val argb: IntArray) {
    init {
        require(argb.size == width * height) { "${argb.size} colors are no $width x $height pixels" }
    }
}
