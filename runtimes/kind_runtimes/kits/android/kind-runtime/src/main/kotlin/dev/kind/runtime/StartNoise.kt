package dev.kind.runtime

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sin
import kotlin.math.sqrt

/**
 * Standard normal numbers from a seed, the same in every language that runs a bundle.
 *
 * Philox4x32-10 words, key = the seed's low and high half, counter = the block's number; two normals from each pair of
 * words by Box-Muller in doubles. `vectors.json` of the tests holds words and normals of several seeds.
 */
internal object StartNoise {
    fun normals(seed: ULong, count: Int): FloatArray {
        val normals = FloatArray((count + 3) / 4 * 4)
        for (block in 0 until normals.size / 4) {
            val words = philox(block, seed)
            for (pair in 0..2 step 2) {
                val radius = sqrt(-2 * ln((words[pair] + 1.0) * TO_UNIT))
                val angle = 2 * PI * (words[pair + 1] * TO_UNIT)
                normals[4 * block + pair] = (radius * cos(angle)).toFloat()
                normals[4 * block + pair + 1] = (radius * sin(angle)).toFloat()
            }
        }
        return normals.copyOf(count)
    }

    /** Four words of 32 bits. */
    fun philox(block: Int, seed: ULong): LongArray {
        var a = block.toUInt()
        var b = 0u
        var c = 0u
        var d = 0u
        var left = seed.toUInt()
        var right = (seed shr 32).toUInt()
        repeat(10) {
            val first = a.toULong() * 0xD2511F53u
            val second = c.toULong() * 0xCD9E8D57u
            a = (second shr 32).toUInt() xor b xor left
            b = second.toUInt()
            c = (first shr 32).toUInt() xor d xor right
            d = first.toUInt()
            left += 0x9E3779B9u
            right += 0xBB67AE85u
        }
        return longArrayOf(a.toLong(), b.toLong(), c.toLong(), d.toLong())
    }

    private const val TO_UNIT = 1.0 / (1L shl 32)
}
