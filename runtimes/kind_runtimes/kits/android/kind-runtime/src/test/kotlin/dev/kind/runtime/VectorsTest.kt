package dev.kind.runtime

import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.json.JSONArray
import org.json.JSONObject
import java.util.Base64
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** `vectors.json` is written by the Python runtime: what it does, this library must do. */
class VectorsTest {
    private val vectors = JSONObject(javaClass.getResource("/vectors.json")!!.readText())

    private fun cases(name: String) = vectors.getJSONArray(name).let { List(it.length(), it::getJSONObject) }

    @Test
    fun noiseIsTheSame() {
        for (case in cases("noise")) {
            val seed = case.getString("seed").toULong()
            val words = (0 until 4).flatMap { StartNoise.philox(it, seed).asList() }
            assertEquals(case.getJSONArray("words").longs(), words, "seed $seed")
            assertClose(case.getJSONArray("normals").floats(), StartNoise.normals(seed, 16), "seed $seed")
            assertContentEquals(StartNoise.normals(seed, 16).copyOf(5), StartNoise.normals(seed, 5))
        }
    }

    @Test
    fun manifestsAreReadOrRefused() {
        for (case in cases("manifests")) {
            val text = case.getString("text")
            if (case.getBoolean("is_refused")) {
                assertFailsWith<KindException>(case.getString("what")) { Manifest.parse(text) }
            } else {
                assertEquals("koala bear", Manifest.parse(text).classes[1].names[1])
            }
        }
    }

    @Test
    fun classesAreFoundAsInPython() {
        val manifest = Manifest.parse(cases("manifests").first().getString("text"))
        for (case in cases("classes")) {
            val query = case.getString("query")
            if (case.isNull("index")) assertFailsWith<KindException>(query) { manifest.indexOfClass(query) }
            else assertEquals(case.getInt("index"), manifest.indexOfClass(query), query)
        }
        val document = cases("manifests").first().getString("text")
        for (case in cases("alike")) {
            val alike = Manifest.parse(JSONObject(document).put("classes", case.getJSONArray("classes")).toString())
            val query = case.getString("query")
            val what = "$query of ${case.getJSONArray("classes")}"
            if (case.isNull("index")) assertFailsWith<KindException>(what) { alike.indexOfClass(query) }
            else assertEquals(case.getInt("index"), alike.indexOfClass(query), what)
        }
        val error = assertFailsWith<KindException> { manifest.indexOfClass("wombat") }
        assertEquals("The bundle holds giant panda, koala.", error.hint)
        assertFailsWith<KindException> { manifest.target("executorch") }
    }

    @Test
    fun packsAreReadOrRefused() {
        val base = Manifest.parse(cases("loops").first { !it.isNull("pack") }.getJSONObject("manifest").toString())
        for (case in cases("packs")) {
            val what = case.getString("what")
            val read = { Pack.read(Base64.getDecoder().decode(case.getString("base64"))) }
            if (case.getBoolean("is_refused")) {
                val error = assertFailsWith<KindException>(what) { read() }
                assertTrue(case.getString("says") in error.message.orEmpty(), "$what: ${error.message}")
            } else if (case.optBoolean("does_not_fit")) {
                assertFailsWith<KindException>(what) { toy(base).attach(read()) }
            } else {
                assertEquals("lemon", read().info.name)
                val tailor = toy(base).attach(read()).getValue("tailor").toArray()
                assertContentEquals(floatArrayOf(0.33325195f, -5.9604645e-8f, 65504f), tailor)
            }
        }
    }

    @Test
    fun pictureIsTheSame() = runBlocking {
        for (case in cases("loops").filter { it.getJSONObject("manifest").getJSONObject("targets").has("onnx") }) {
            val what = case.getString("what")
            val decoded = mutableListOf<FloatArray>()
            val generator = toy(Manifest.parse(case.getJSONObject("manifest").toString()), decoded)
            val previews = generator.generate(case, previewEvery = 1).toList()
            val latents = case.getJSONArray("latents")
            for (i in 0 until latents.length()) assertClose(latents.getJSONArray(i).floats(), decoded[i], "$what, step $i")
            assertEquals((1..latents.length()).toList(), previews.map { it.step }, what)
            assertEquals(case.getJSONArray("rgb").longs(), previews.last().picture.rgb(), what)
            assertContentEquals(previews.last().picture.argb, generator.generate(case, 0).picture().argb, what)
            assertEquals(listOf(3, 4), generator.generate(case, 3).toList().map { it.step }, what)
        }
    }

    @Test
    fun wrongKindsOfClassAreRefused() {
        val loops = cases("loops").associateBy { it.getString("what") }
        val base = toy(Manifest.parse(loops.getValue("a pack").getJSONObject("manifest").toString()))
        assertFailsWith<KindException> { base.generate("koala", 0u) }
        val closed = toy(Manifest.parse(cases("manifests").first().getString("text")))
        assertFailsWith<KindException> { closed.generate(Pack.read(loops.getValue("a pack").pack()!!), 0u) }
    }

    @Test
    fun drawingStopsWithItsCollector() = runBlocking {
        val decoded = mutableListOf<FloatArray>()
        val generator = toy(Manifest.parse(cases("manifests").first().getString("text")), decoded)
        generator.generate("koala", seed = 1u).first()
        delay(50)
        assertTrue(decoded.size <= 2, "${decoded.size} of ${generator.manifest.steps} steps")
    }

    @Test
    fun numbersThatAreNotFiniteAreRefused() = runBlocking {
        val manifest = Manifest.parse(cases("manifests").first().getString("text"))
        val generator = KindGenerator(manifest, toyPrograms(manifest) { latents -> latents.map { Float.NaN } })
        val error = assertFailsWith<KindException> { generator.generate("koala", 1u, previewEvery = 0).picture() }
        assertEquals("seed 1 gives numbers that are not finite at guidance 1.5", error.message)
    }

    @Test
    fun guidanceIsBoundedAsInPython() = runBlocking {
        val generator = toy(Manifest.parse(cases("manifests").first().getString("text")))
        for (wrong in listOf(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY, 100.5f, -101f)) {
            val error = assertFailsWith<KindException> { generator.generate("koala", 1u, guidance = wrong) }
            assertEquals("guidance is $wrong, expected a finite number up to 100", error.message)
        }
        for (right in listOf(100f, -100f, 0f)) generator.generate("koala", 1u, guidance = right).picture()
    }

    @Test
    fun caseOfTheResultsHasItsFields() = runBlocking {
        for (loop in cases("loops").filter { it.getJSONObject("manifest").getJSONObject("targets").has("onnx") }) {
            val manifest = Manifest.parse(loop.getJSONObject("manifest").toString())
            val case = Stopwatch(repeats = 3, warmup = 1).measure(toy(manifest))
            assertEquals(3, case.getJSONObject("step_ms").getJSONArray("samples").length())
            assertEquals(manifest.guidedSteps != null, case.has("step_unguided_ms"))
        }
    }

    private fun KindGenerator.generate(case: JSONObject, previewEvery: Int) = case.getString("seed").toULong().let { seed ->
        val guidance = if (case.isNull("guidance")) null else case.getDouble("guidance").toFloat()
        if (case.isNull("class")) generate(case.pack()?.let(Pack::read), seed, guidance, previewEvery)
        else generate(case.getString("class"), seed, guidance, previewEvery)
    }

    private fun JSONObject.pack() = if (isNull("pack")) null else Base64.getDecoder().decode(getString("pack"))

    private fun toy(manifest: Manifest, decoded: MutableList<FloatArray> = mutableListOf()) =
        KindGenerator(manifest, toyPrograms(manifest, decoded))

    private fun Picture.rgb() =
        argb.flatMap { color -> listOf(16, 8, 0).map { color shr it and 0xFF } }.map(Int::toLong)

    private fun JSONArray.longs() = List(length(), ::getLong)

    private fun assertClose(expected: FloatArray, actual: FloatArray, message: String) {
        assertEquals(expected.size, actual.size, message)
        for (i in expected.indices) assertEquals(expected[i], actual[i], 1e-5f, "$message, number $i")
    }
}
