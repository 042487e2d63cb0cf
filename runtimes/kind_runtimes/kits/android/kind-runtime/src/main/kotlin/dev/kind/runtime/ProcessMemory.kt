package dev.kind.runtime

import java.io.File

/** A figure of this process from the kernel: `VmHWM` is the most memory that it held, `VmRSS` what it holds. */
internal fun memoryBytes(field: String): Long? = File("/proc/self/status").takeIf(File::canRead)?.useLines { lines ->
    lines.firstOrNull { it.startsWith("$field:") }?.filter(Char::isDigit)?.toLong()?.times(1024)
}
