package dev.kind.runtime

import kotlinx.coroutines.runBlocking
import org.json.JSONObject
import java.io.File
import java.security.MessageDigest
import java.util.Base64
import kotlin.io.path.createTempDirectory
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** The results name every unit of the device, and time those that draw right. */
class BenchmarkTest {
    private val folder: File = createTempDirectory().toFile()

    @AfterTest
    fun removeFolder() {
        folder.deleteRecursively()
    }

    private fun bundle(): KindBundle {
        val ladders = JSONObject(javaClass.getResource("/vectors.json")!!.readText()).getJSONArray("ladders")
        val golden = Base64.getDecoder().decode(ladders.getJSONObject(0).getString("golden"))
        val digest = MessageDigest.getInstance("SHA-256").digest(golden).joinToString("") { "%02x".format(it) }
        val manifest = ladders.getJSONObject(0).getJSONObject("manifest")
        manifest.getJSONObject("files").put(Golden.FILE, JSONObject().put("sha256", digest))
        folder.resolve("manifest.json").writeText(manifest.toString())
        folder.resolve(Golden.FILE).writeBytes(golden)
        return KindBundle.open(folder)
    }

    private class Toy(private val bundle: KindBundle, override val name: String, override val kind: UnitKind) : Provider {
        override val target = "onnx"

        override fun open() =
            toyPrograms(bundle.manifest) { latents -> if (kind == UnitKind.GPU) latents.mirrored() else latents }
    }

    private fun benchmark(bundle: KindBundle) = Benchmark(bundle, repeats = 3, warmup = 1) {
        listOf(Toy(bundle, "a-gpu", UnitKind.GPU), Toy(bundle, "CPU", UnitKind.CPU))
    }

    @Test
    fun resultsHaveEveryUnitAndTimeThoseThatDrawRight() = runBlocking {
        val results = benchmark(bundle()).run(JSONObject(), threads = listOf(1, 2))
        val (gpu, cpu) = results.getJSONArray("units").let { List(it.length(), it::getJSONObject) }
        assertFalse(gpu.getBoolean("is_taken"))
        assertEquals("latents of 12.0 dB, expected 35 dB", gpu.getString("reason"))
        assertTrue(cpu.getBoolean("is_taken"))
        assertEquals(listOf("onnx", 4), listOf(cpu.get("runtime"), cpu.get("steps")))
        val cases = results.getJSONArray("cases").let { List(it.length(), it::getJSONObject) }
        assertEquals(listOf("CPU" to 1, "CPU" to 2), cases.map { it.getString("provider") to it.getInt("threads") })
        assertEquals("fp16", cases.first().getString("precision"))
    }

    @Test
    fun unitsAreChosenByName() = runBlocking {
        val results = benchmark(bundle()).run(JSONObject(), units = listOf("A-GPU"))
        assertEquals(1, results.getJSONArray("units").length())
        assertEquals(0, results.getJSONArray("cases").length())
        val error = assertFailsWith<KindException> { benchmark(bundle()).run(JSONObject(), units = listOf("tpu")) }
        assertEquals("This device offers a-gpu, CPU.", error.hint)
    }

    @Test
    fun goldenDataThatWereChangedAreRefused() = runBlocking<kotlin.Unit> {
        val bundle = bundle()
        folder.resolve(Golden.FILE).appendBytes(byteArrayOf(0))
        val error = assertFailsWith<KindException> { benchmark(bundle).run(JSONObject()) }
        assertTrue("the manifest expects" in error.message!!, error.message)
    }
}
