package dev.kind.runtime

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtProvider
import ai.onnxruntime.OrtSession
import android.content.Context
import android.os.Build
import android.os.PowerManager
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.runBlocking
import org.json.JSONObject
import java.io.File
import java.security.MessageDigest
import java.util.Base64
import java.util.Collections
import java.util.EnumSet
import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread
import kotlin.io.path.createTempDirectory
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** What needs Android and onnxruntime, over stand-ins for both: assets, units, sessions, pictures and measuring. */
class AndroidTest {
    private val folder: File = createTempDirectory().toFile()
    private val context = Context(folder.resolve("assets"), folder.resolve("kept"))

    @AfterTest
    fun clean() {
        folder.deleteRecursively()
        OrtEnvironment.offered = EnumSet.of(OrtProvider.CPU)
        OrtSession.SessionOptions.qnnFault = null
        OrtSession.open.clear()
        Build.FINGERPRINT = "google/shiba:15"
        PowerManager.status = PowerManager.THERMAL_STATUS_NONE
    }

    /** The assets of an app with the bundle of a ladder of the vectors; its programs are the toys, with units' faults. */
    private fun ship(what: String, vararg faults: Pair<String, String>) {
        val vectors = JSONObject(javaClass.getResource("/vectors.json")!!.readText()).getJSONArray("ladders")
        val case = List(vectors.length(), vectors::getJSONObject).first { it.getString("what") == what }
        val manifest = JSONObject(case.getJSONObject("manifest").toString().replace("a-target\\/", "onnx\\/").replace("a-target/", "onnx/"))
        val programs = Manifest.parse(manifest.toString()).target("onnx").programs
        val files = mutableMapOf("golden.safetensors" to Base64.getDecoder().decode(case.getString("golden")))
        for (spec in programs.values) files[spec.file] = spec.file.toByteArray()
        manifest.put("files", JSONObject(files.mapValues { (_, bytes) -> JSONObject().put("sha256", sha256(bytes)) }))
        files["manifest.json"] = manifest.toString().toByteArray()
        for ((path, bytes) in files) {
            folder.resolve("assets/model.kind/$path").also { it.parentFile.mkdirs() }.writeBytes(bytes)
        }
        OrtSession.program = toys(Manifest.parse(manifest.toString()), mapOf(*faults))
    }

    /** Programs wait from now on: the first latch says that one has begun, the second lets them go on. */
    private fun holdSteps(): Pair<CountDownLatch, CountDownLatch> {
        val (begun, goOn) = CountDownLatch(1) to CountDownLatch(1)
        val held = OrtSession.program
        OrtSession.program = OrtSession.Program { file, unit, inputs ->
            begun.countDown()
            goOn.await()
            held.run(file, unit, inputs)
        }
        return begun to goOn
    }

    private fun toys(manifest: Manifest, faults: Map<String, String>) = OrtSession.Program { file, unit, inputs ->
        val toys = toyPrograms(manifest) { latents ->
            when (faults[unit]) {
                "nan" -> latents.map { Float.NaN }
                "mirrored" -> latents.mirrored()
                else -> latents
            }
        }
        val program = when (file) {
            "decode" -> toys.decode
            "step_unguided" -> toys.stepUnguided!!
            else -> toys.step
        }
        val tensors = inputs.mapValues { (name, values) ->
            Tensor(values, if (name in setOf("latents", "history")) manifest.latentsShape else listOf(values.size))
        }
        program.run(tensors).mapValues { (_, tensor) -> tensor.toArray() }
    }

    private fun sha256(bytes: ByteArray) =
        MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }

    private fun bundle() = KindBundle.fromAssets(context, "model.kind")

    @Test
    fun assetsAreCopiedOncePerVersionOfTheApp() {
        ship("the NPU is right")
        val first = bundle().folder
        first.resolve("manifest.json").setLastModified(1000)
        assertEquals(first, bundle().folder)
        assertEquals(1000, first.resolve("manifest.json").lastModified())
        context.packageManager.info.lastUpdateTime = 2
        val second = bundle().folder
        assertTrue(second.isDirectory && !first.exists(), "$first and $second")
    }

    @Test
    fun ladderGoesDownWhatOnnxruntimeOffers(): Unit = runBlocking {
        ship("guidance in two steps", "NNAPI" to "nan", "XNNPACK" to "mirrored")
        OrtEnvironment.offered = EnumSet.allOf(OrtProvider::class.java)
        OrtSession.SessionOptions.qnnFault = "no context: the graph is too large"
        bundle().openGenerator(store = UnitStore.of(context)).use { generator ->
            assertEquals(listOf("QNN", "NNAPI", "QNN-GPU", "XNNPACK"), generator.refusedUnits.map { it.name })
            assertTrue("the graph is too large" in generator.refusedUnits[0].reason!!, generator.refusedUnits[0].reason)
            assertEquals("latents that are no numbers", generator.refusedUnits[1].reason)
            assertEquals("CPU", generator.unit.name)
            assertEquals(3, OrtSession.open.size, "sessions of refused units are closed")
            val picture = generator.generate("panda", seed = 7u, previewEvery = 0).picture()
            assertEquals(picture.argb.toList(), picture.toBitmap().colors.toList())
        }
        assertEquals(0, OrtSession.open.size)
        assertEquals(0, OnnxTensor.numOpen)
        assertEquals(0, OrtSession.SessionOptions.numOpen)
        bundle().openGenerator(store = UnitStore.of(context)).use { assertEquals(4, it.refusedUnits.size) }
        OrtSession.SessionOptions.qnnFault = null
        Build.FINGERPRINT = "google/shiba:16"
        bundle().openGenerator(store = UnitStore.of(context)).use { assertEquals("QNN", it.unit.name) }
    }

    @Test
    fun unitsAreOpenedAsTheirEngineWantsIt(): Unit = runBlocking {
        ship("the NPU is right")
        OrtEnvironment.offered = EnumSet.allOf(OrtProvider::class.java)
        bundle().openGenerator(threads = 3, unit = "xnnpack").use { assertEquals("XNNPACK", it.unit.name) }
        bundle().openGenerator(threads = 3, unit = "XNNPACK").use {
            val options = OrtSession.open.first().options
            assertEquals(mapOf("intra_op_num_threads" to "3"), options.provider)
            assertEquals(1, options.threads)
        }
        bundle().openGenerator(threads = 3, unit = "CPU").use { assertEquals(3, OrtSession.open.first().options.threads) }
        bundle().openGenerator(unit = "NNAPI").use {
            assertEquals("[USE_FP16, CPU_DISABLED]", OrtSession.open.first().options.provider["flags"])
        }
        val error = assertFailsWith<KindException> { bundle().openGenerator(unit = "TPU") }
        assertEquals("This device offers QNN, NNAPI, QNN-GPU, XNNPACK, CPU.", error.hint)
    }

    @Test
    fun closingWaitsForTheStepUnderWay(): Unit = runBlocking {
        ship("the NPU is right")
        val generator = bundle().openGenerator(unit = "CPU")
        val (begun, goOn) = holdSteps()
        val drawing = async(Dispatchers.Default) { runCatching { generator.generate("panda", seed = 7u).picture() } }
        begun.await()
        val closing = thread { generator.close() }
        while (closing.state !in setOf(Thread.State.WAITING, Thread.State.TERMINATED)) Thread.sleep(1)
        val numOpen = OrtSession.open.size
        goOn.countDown()
        closing.join()
        assertEquals(2, numOpen, "sessions are closed while one runs")
        assertEquals(0, OrtSession.open.size)
        assertEquals("the generator is closed", drawing.await().exceptionOrNull()?.message)
        generator.close()
    }

    @Test
    fun whatACancelledCallerOpenedIsClosed(): Unit = runBlocking {
        ship("the NPU is right")
        val (begun, goOn) = holdSteps()
        val opening = async(Dispatchers.Default) { bundle().openGenerator() }
        begun.await()
        opening.cancel()
        goOn.countDown()
        opening.join()
        assertEquals(0, OrtSession.open.size)
    }

    @Test
    fun stepThatFailsIsSaidInALine(): Unit = runBlocking {
        ship("the NPU is right")
        bundle().openGenerator(unit = "CPU").use { generator ->
            OrtSession.program = OrtSession.Program { _, _, _ -> throw OrtException("the device was lost") }
            val error = assertFailsWith<KindException> { generator.generate("panda", seed = 7u).picture() }
            assertEquals("onnxruntime cannot run onnx/step: the device was lost", error.message)
            assertEquals(0, OnnxTensor.numOpen)
        }
    }

    @Test
    fun bundlesAreCopiedApartAndAtOnce() {
        ship("the NPU is right")
        folder.resolve("assets/model.kind").copyRecursively(folder.resolve("assets/model.kind-2"))
        val second = KindBundle.fromAssets(context, "model.kind-2").folder
        val opened = Collections.synchronizedList(mutableListOf<KindBundle>())
        List(8) { thread { opened += bundle() } }.forEach(Thread::join)
        assertEquals(8, opened.size)
        assertTrue(second.isDirectory, "another bundle's files are gone")
    }

    @Test
    fun whatIsMissingIsSaidInALine(): Unit = runBlocking {
        val missing = assertFailsWith<KindException> { bundle() }
        assertEquals("the app has no folder 'model.kind' in its assets", missing.message)
        ship("the NPU is right")
        bundle().openGenerator(unit = "CPU").use { generator ->
            val error = assertFailsWith<KindException> { generator.generate(pack = null, seed = 7u) }
            assertTrue("the bundle takes no packs: " in error.message!!, error.message)
        }
    }

    @Test
    fun deviceIsMeasuredAndDescribed(): Unit = runBlocking {
        ship("guidance in two steps", "NNAPI" to "nan")
        OrtEnvironment.offered = EnumSet.of(OrtProvider.CPU, OrtProvider.NNAPI)
        PowerManager.status = PowerManager.THERMAL_STATUS_MODERATE
        val results = Benchmark(bundle(), repeats = 3, warmup = 1).run(describeDevice(context), threads = listOf(1, 2))
        val machine = results.getJSONObject("machine")
        assertEquals("Tensor G3", machine.getString("processor"))
        assertEquals("fair", machine.getString("thermal_state"))
        val units = results.getJSONArray("units")
        assertEquals(listOf(false, true), List(units.length()) { units.getJSONObject(it).getBoolean("is_taken") })
        assertEquals(2, results.getJSONArray("cases").length())
        System.getenv("KIND_RESULTS")?.let { File(it).writeText(results.toString(2)) }
    }
}
