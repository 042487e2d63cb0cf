package dev.kind.runtime

import org.json.JSONObject
import java.io.File
import kotlin.io.path.createTempDirectory
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Nothing is opened but the files that were verified. */
class KindBundleTest {
    private val folder: File = createTempDirectory().toFile()

    @AfterTest
    fun removeFolder() {
        folder.deleteRecursively()
    }

    private fun bundle(vararg files: Pair<String, String>): KindBundle {
        val vectors = JSONObject(javaClass.getResource("/vectors.json")!!.readText())
        val manifest = JSONObject(vectors.getJSONArray("manifests").getJSONObject(0).getString("text"))
        for ((path, sha256) in files) manifest.getJSONObject("files").put(path, JSONObject().put("sha256", sha256))
        folder.resolve("manifest.json").writeText(manifest.toString())
        return KindBundle.open(folder)
    }

    @Test
    fun fileWithItsHashIsOpened() {
        val file = folder.resolve("onnx/step").apply { parentFile.mkdirs() }
        file.writeText("abc")
        assertEquals(file, bundle("onnx/step" to ABC_SHA256).checked("onnx/step"))
    }

    @Test
    fun manifestIsNamedByItsHash() {
        assertTrue(Regex("[0-9a-f]{64}").matches(bundle().manifestSha256))
    }

    @Test
    fun changedMissingAndUnlistedFilesAreRefused() {
        folder.resolve("changed").writeText("abcd")
        folder.resolve("pointer").writeText("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
        val bundle = bundle("changed" to ABC_SHA256, "missing" to ABC_SHA256, "pointer" to ABC_SHA256)
        val reasons = mapOf(
            "changed" to "the manifest expects", "missing" to "has no file", "new" to "lists no",
            "pointer" to "is a Git LFS pointer",
        )
        for ((path, reason) in reasons) {
            val error = assertFailsWith<KindException> { bundle.checked(path) }
            assertTrue(reason in error.message!!, error.message)
        }
    }

    @Test
    fun fileOutsideTheBundleIsRefused() {
        val outside = File.createTempFile("outside", "").apply { writeText("abc") }
        val path = "../${outside.name}"
        val error = assertFailsWith<KindException> { bundle(path to ABC_SHA256).checked(path) }
        assertTrue("outside the bundle" in error.message!!, error.message)
        outside.delete()
    }

    @Test
    fun folderWithoutManifestIsRefused() {
        assertFailsWith<KindException> { KindBundle.open(folder.resolve("nothing")) }
    }

    private companion object {
        const val ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
}
