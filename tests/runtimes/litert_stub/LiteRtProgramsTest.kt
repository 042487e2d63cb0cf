package dev.kind.runtime

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer
import kotlinx.coroutines.runBlocking
import org.json.JSONObject
import java.io.File
import kotlin.io.path.createTempDirectory
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** The kit calls LiteRT by the names of the manifest, compiles a file once and closes all that it opened. */
class LiteRtProgramsTest {
    private val folder: File = createTempDirectory().toFile()

    @AfterTest
    fun removeFolder() {
        folder.deleteRecursively()
        CompiledModel.models.clear()
        CompiledModel.calls.clear()
        CompiledModel.fault = null
        CompiledModel.outOfMemoryAt = null
        TensorBuffer.open.clear()
    }

    /** A bundle whose step and unguided step are signatures of one file. */
    private fun bundle(): KindBundle {
        val vectors = JSONObject(javaClass.getResource("/vectors.json")!!.readText())
        val manifest = JSONObject(vectors.getJSONArray("manifests").getJSONObject(0).getString("text"))
        val targets = manifest.getJSONObject("targets")
        val programs = JSONObject(targets.getJSONObject("onnx").toString()).getJSONObject("programs")
        programs.getJSONObject("step").put("file", "litert/step.tflite")
        programs.getJSONObject("decode").put("file", "litert/decode.tflite")
        val unguided = JSONObject(programs.getJSONObject("step").toString())
        unguided.getJSONArray("inputs").remove(3)
        programs.put("step_unguided", unguided)
        targets.put("litert", JSONObject(targets.getJSONObject("onnx").toString()).put("programs", programs))
        manifest.put("guided_steps", org.json.JSONArray(listOf(0, 2)))
        for (name in listOf("step", "decode")) {
            folder.resolve("litert").mkdirs()
            folder.resolve("litert/$name.tflite").writeText("abc")
            manifest.getJSONObject("files").put("litert/$name.tflite", JSONObject().put("sha256", ABC_SHA256))
        }
        folder.resolve("manifest.json").writeText(manifest.toString())
        return KindBundle.open(folder)
    }

    @Test
    fun stepsAreCalledByNameAndSignature() {
        val bundle = bundle()
        openLiteRtPrograms(bundle, Accelerator.GPU, threads = null).use { programs ->
            val generator = KindGenerator(bundle.manifest, programs)
            assertEquals("LiteRT on GPU", programs.engine)
            assertEquals(2, CompiledModel.models.size)
            var state = mapOf("latents" to Tensor(FloatArray(18) { 0.25f }, listOf(1, 3, 2, 3)))
            for (index in 0 until 4) {
                state = generator.step(index, state + ("class_index" to Tensor.scalar(1)), guidance = 2f)
            }
            assertEquals(List(18) { 4.25f }, state.getValue("latents").toArray().toList())
            assertEquals(listOf("step", "step_unguided", "step", "step_unguided"), CompiledModel.calls.map { it.first })
            assertEquals(listOf<Number>(3), CompiledModel.calls.last().second.getValue("step_index"))
            assertEquals(setOf("latents", "step_index", "class_index"), CompiledModel.calls.last().second.keys)
            assertEquals(listOf<Number>(2f), CompiledModel.calls.first().second.getValue("guidance"))
            assertEquals(6, generator.decode(state).argb.size)
        }
        assertTrue(CompiledModel.models.isEmpty() && TensorBuffer.open.isEmpty())
    }

    @Test
    fun threadsAndUnitAreTheCallers() {
        openLiteRtPrograms(bundle(), Accelerator.CPU, threads = 2).use {
            val options = CompiledModel.models.first().options
            assertEquals(listOf(Accelerator.CPU), options.accelerators.toList())
            assertEquals(2, options.cpuOptions?.numThreads)
        }
    }

    @Test
    fun unitsOfLiteRtAreALadder() = runBlocking {
        val bundle = bundle() // without golden data, so that nothing can be checked
        bundle.openLiteRtGenerator(threads = 2).use { generator ->
            assertEquals("LiteRT-CPU", generator.unit.name)
            assertEquals("litert", generator.unit.runtime)
            assertEquals("not checked: the bundle came without golden.safetensors", generator.unit.reason)
        }
        bundle.openLiteRtGenerator(Accelerator.GPU).use { assertEquals(UnitKind.GPU, it.unit.kind) }
        val ladder = liteRtProviders(bundle, threads = 2)
        assertEquals(listOf(UnitKind.NPU, UnitKind.GPU, UnitKind.CPU), ladder.map { it.kind })
        assertEquals(listOf(true, true, false), ladder.map { it.isHalf })
    }

    @Test
    fun aUnitThatIsNotThereIsNamed() {
        val error = assertFailsWith<KindException> { openLiteRtPrograms(bundle(), Accelerator.NPU, threads = null) }
        assertTrue("on NPU: no such unit" in error.message!!, error.message)
        assertTrue(CompiledModel.models.isEmpty() && TensorBuffer.open.isEmpty())
    }

    @Test
    fun nothingStaysOpenWhereMemoryRunsOut() {
        CompiledModel.outOfMemoryAt = "image" // of decode, after step
        assertFailsWith<OutOfMemoryError> { openLiteRtPrograms(bundle(), Accelerator.GPU, threads = null) }
        assertTrue(CompiledModel.models.isEmpty() && TensorBuffer.open.isEmpty())
    }

    @Test
    fun stepThatFailsIsSaidInALine(): Unit = runBlocking {
        bundle().openLiteRtGenerator(Accelerator.GPU).use { generator ->
            CompiledModel.fault = "the device was lost"
            val error = assertFailsWith<KindException> { generator.generate("panda", seed = 7u).picture() }
            assertEquals("LiteRT cannot run litert/step.tflite: the device was lost", error.message)
        }
    }

    @Test
    fun aFileThatWasChangedIsRefused() {
        val bundle = bundle()
        folder.resolve("litert/decode.tflite").writeText("abd")
        assertFailsWith<KindException> { openLiteRtPrograms(bundle, Accelerator.CPU, threads = null) }
        assertTrue(CompiledModel.models.isEmpty() && TensorBuffer.open.isEmpty())
    }

    private companion object {
        const val ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
}
