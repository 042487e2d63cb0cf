package dev.kind.runtime

import java.io.File
import java.io.IOException
import java.security.MessageDigest

/**
 * A bundle that `kind-export` wrote, in a folder. An app needs of it `manifest.json`, the folder of its target and, of a
 * base, packs. The programs are checked when [KindGenerator] opens them.
 */
class KindBundle private constructor(val folder: File, val manifest: Manifest, internal val manifestSha256: String) {

    /** One file of the bundle, after checking that it is the one that was verified. */
    internal fun checked(path: String): File {
        val expected = manifest.files[path]
            ?: throw KindException("manifest.json lists no file $path", "Export the bundle again.")
        val file = folder.resolve(path)
        if (!file.canonicalPath.startsWith(folder.canonicalPath + File.separator)) {
            throw KindException("manifest.json lists '$path', which is outside the bundle", "Export it again.")
        }
        if (!file.isFile) throw KindException("$folder has no file $path", "Copy the whole folder again.")
        val actual = file.sha256()
        if (actual != expected && file.length() < MAX_POINTER_BYTES && file.readBytes().isPointer()) {
            throw KindException("$path is a Git LFS pointer, not the file itself", "git lfs pull brings it.")
        }
        if (actual != expected) {
            throw KindException(
                "$path has sha256 ${actual.take(12)}..., the manifest expects ${expected.take(12)}...",
                "The file was changed or damaged: copy or export the bundle again.",
            )
        }
        return file
    }

    companion object {
        private const val MAX_POINTER_BYTES = 1024

        /** Reads the manifest of a bundle folder. */
        fun open(folder: File): KindBundle {
            val bytes = try {
                folder.resolve("manifest.json").readBytes()
            } catch (error: IOException) {
                throw KindException("there is no bundle at $folder", "Copy the exported folder there.", error)
            }
            return KindBundle(folder, Manifest.parse(bytes.decodeToString()), bytes.inputStream().sha256())
        }
    }
}

private fun File.sha256() = inputStream().use { it.sha256() }

private fun java.io.InputStream.sha256(): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val chunk = ByteArray(1 shl 16)
    while (true) {
        val count = read(chunk)
        if (count < 0) break
        digest.update(chunk, 0, count)
    }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
