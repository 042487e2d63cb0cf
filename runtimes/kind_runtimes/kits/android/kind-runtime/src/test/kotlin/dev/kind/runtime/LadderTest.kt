package dev.kind.runtime

import org.json.JSONObject
import java.io.File
import java.nio.ByteBuffer
import java.util.Base64
import java.util.concurrent.CountDownLatch
import kotlin.io.path.createTempDirectory
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** Units that draw wrong are refused, whatever is wrong with them; `vectors.json` says which, see `mobile_ladders.py`. */
class LadderTest {
    private val vectors = JSONObject(javaClass.getResource("/vectors.json")!!.readText())
    private val folder: File = createTempDirectory().toFile()
    private val ended = CountDownLatch(1)

    @AfterTest
    fun clean() {
        ended.countDown()
        folder.deleteRecursively()
    }

    /** A unit of the vectors. */
    private inner class Unit(val manifest: Manifest, val fault: String, kind: String) : Provider {
        override val kind = UnitKind.valueOf(kind.uppercase())
        override val name = "toy-$kind"
        override val target = "onnx"
        var numOpened = 0

        override fun open(): Programs {
            numOpened++
            if (fault == "hang") ended.await()
            if (fault == "load") throw UnsatisfiedLinkError("libDriver.so is missing")
            val mirror = { picture: Tensor -> if (fault == "picture") picture.mirrored() else picture }
            return toyPrograms(manifest, spoilPicture = mirror) { latents ->
                when (fault) {
                    "nan" -> latents.map { Float.NaN }
                    "zeros" -> latents.map { 0f }
                    "mirrored" -> latents.mirrored()
                    "rounded" -> latents.map { it * (1f + 1f / 2048) }
                    "stall" -> latents.also { ended.await() }
                    "step" -> throw IllegalStateException("the driver was lost")
                    else -> latents
                }
            }
        }
    }

    private inner class Case(val json: JSONObject) {
        val what: String = json.getString("what")
        val manifest = Manifest.parse(json.getJSONObject("manifest").toString())
        val golden = Golden.read(ByteBuffer.wrap(Base64.getDecoder().decode(json.getString("golden"))), manifest)
        val expected = json.getJSONArray("expected").let { List(it.length(), it::getJSONObject) }
        val faults = json.getJSONObject("units")

        /** With [changed] in place of the faults of the vectors. */
        fun units(vararg changed: Pair<String, String>) =
            faults.keys().asSequence().map { Unit(manifest, changed.toMap()[it] ?: faults.getString(it), it) }.toList()

        fun ladder(store: UnitStore? = null, hour: Int = 0) = Ladder(
            manifest, golden, store?.open("ab".repeat(32)) ?: UnitStore.Notes(null), timeLimitMs = 300,
            clock = { hour * 3_600_000L },
        )
    }

    private fun cases() = vectors.getJSONArray("ladders").let { all -> List(all.length()) { Case(all.getJSONObject(it)) } }

    private fun case(what: String) = cases().first { it.what == what }

    private fun store(app: String = "1", system: String = "15") = UnitStore(folder, app, system)

    @Test
    fun wrongUnitsAreRefusedAndTheFirstRightOneDraws() {
        for (case in cases()) {
            val units = case.units().reversed() // the ladder sorts
            val taken = case.expected.firstOrNull { it.getBoolean("is_taken") }
            if (taken == null) {
                val error = assertFailsWith<KindException>(case.what) { case.ladder().open(units) }
                for (one in case.expected) assertTrue("toy-${one.getString("kind")}" in error.message!!, error.message)
                continue
            }
            val generator = case.ladder().open(units)
            val tried = generator.refusedUnits + generator.unit
            assertEquals(case.expected.map { it.getString("kind") }, tried.map { it.kind.name.lowercase() }, case.what)
            for ((unit, wanted) in tried.zip(case.expected)) {
                assertEquals(wanted.getBoolean("is_taken"), unit.isTaken, case.what)
                assertEquals(unit.isTaken, unit.reason == null, "${case.what}: ${unit.reason}")
                if (wanted.isNull("psnr_db")) assertNull(unit.psnrDb, case.what)
                else assertEquals(wanted.getDouble("psnr_db"), assertNotNull(unit.psnrDb), 0.05, case.what)
            }
        }
    }

    @Test
    fun reasonsSayWhatWasWrong() {
        val reasons = cases().filter { it.what != "nothing is right" }.flatMap { case ->
            case.ladder().open(case.units()).refusedUnits.map { case.faults.getString(it.kind.name.lowercase()) to it.reason!! }
        }.toMap()
        assertEquals("latents that are no numbers", reasons["nan"])
        assertEquals("latents of 12.0 dB, expected 35 dB", reasons["mirrored"])
        assertTrue("a picture of" in reasons.getValue("picture"), reasons["picture"])
        assertEquals("it gave nothing in 0.3 s", reasons["stall"])
        assertEquals("libDriver.so is missing", reasons["load"])
        assertEquals("the driver was lost", reasons["step"])
        assertEquals("latents of 58.0 dB, expected 60 dB", reasons["rounded"])
    }

    @Test
    fun unitThatComputesInHalvesIsHeldToHalves() {
        val case = case("rounded: too little for fp32")
        val half = object : Provider by case.units().first() {
            override val isHalf = true
        }
        assertEquals(UnitKind.GPU, case.ladder().open(listOf(half)).unit.kind)
    }

    @Test
    fun whatWasFoundIsKeptUntilAppOrSystemChange() {
        val case = case("NaN, then a mirrored trajectory")
        val first = case.ladder(store()).open(case.units())
        val mended = case.units("npu" to "none")
        val again = case.ladder(store()).open(mended)
        assertEquals(listOf(0, 0, 1), mended.map { it.numOpened })
        assertEquals(first.unit.psnrDb, again.unit.psnrDb)
        assertEquals(first.unit.peakMemoryBytes, again.unit.peakMemoryBytes)
        assertEquals(first.refusedUnits.map { it.reason }, again.refusedUnits.map { it.reason })
        assertEquals(UnitKind.NPU, case.ladder(store(system = "16")).open(case.units("npu" to "none")).unit.kind)
        assertEquals(UnitKind.CPU, case.ladder(store(app = "2")).open(case.units()).unit.kind)
    }

    @Test
    fun unitThatASystemUpdateBreaksIsRefusedThen() {
        val case = case("the NPU is right")
        assertEquals(UnitKind.NPU, case.ladder(store()).open(case.units()).unit.kind)
        val broken = arrayOf("npu" to "zeros", "gpu" to "none")
        assertEquals(UnitKind.GPU, case.ladder(store(system = "16")).open(case.units(*broken)).unit.kind)
    }

    @Test
    fun unitThatNoLongerOpensIsRefused() {
        val case = case("the NPU is right")
        case.ladder(store()).open(case.units())
        val generator = case.ladder(store()).open(case.units("npu" to "load", "gpu" to "none"))
        assertEquals(UnitKind.GPU, generator.unit.kind)
        assertEquals("libDriver.so is missing", generator.refusedUnits.single().reason)
    }

    @Test
    fun unitThatEndedTheAppTwiceIsNotTriedAgain() {
        val case = case("the NPU is right")
        repeat(2) { store().open("ab".repeat(32)).begin("toy-npu") }
        val units = case.units("gpu" to "none")
        val generator = case.ladder(store()).open(units)
        assertEquals(0, units.first().numOpened)
        assertEquals(UnitKind.GPU, generator.unit.kind)
        assertTrue("ended 2 times" in generator.refusedUnits.single().reason!!)
    }

    @Test
    fun keptUnitThatEndsTheAppWhenItIsOpenedIsRefusedInTheEnd() {
        val case = case("the NPU is right")
        val right = case.units("gpu" to "none")
        case.ladder(store()).open(right)
        repeat(2) { store().open("ab".repeat(32)).begin("toy-npu") }
        val generator = case.ladder(store()).open(right)
        assertEquals(UnitKind.GPU, generator.unit.kind)
        assertTrue("ended 2 times" in generator.refusedUnits.single().reason!!)
        assertEquals(1, right.first().numOpened)
    }

    @Test
    fun oneEndOfTheAppIsForgottenOnceAUnitOpens() {
        val case = case("the NPU is right")
        repeat(4) {
            store().open("ab".repeat(32)).begin("toy-npu")
            assertEquals(UnitKind.NPU, case.ladder(store()).open(case.units()).unit.kind)
        }
    }

    @Test
    fun unitThatGaveNothingIsTriedOnceMoreADayLater() {
        val case = case("a stall, then a crash at load")
        val cases = vectors.getJSONArray("failures").let { List(it.length(), it::getJSONObject) }
        for (failures in cases) {
            val starts = failures.getJSONArray("starts").let { List(it.length(), it::getJSONObject) }
            for (start in starts) {
                val units = case.units("npu" to start.getString("npu"))
                val what = "${failures.getString("what")}, hour ${start.getInt("hour")}"
                val generator = case.ladder(store(), start.getInt("hour")).open(units)
                assertEquals(start.getString("takes"), generator.unit.kind.name.lowercase(), what)
                assertEquals(start.getBoolean("is_tried"), units.first().numOpened > 0, what)
            }
            folder.deleteRecursively()
        }
    }

    @Test
    fun notesOfAnEarlierVersionAreReadAndItReadsTheseOnes() {
        val case = case("a stall, then a crash at load")
        case.ladder(store()).open(case.units())
        val file = folder.listFiles()!!.single()
        val notes = JSONObject(file.readText())
        assertEquals(1, notes.getJSONObject("failures").getJSONObject("toy-npu").getInt("times"))
        assertEquals(0, notes.getJSONObject("attempts").length())
        assertEquals(3, notes.getJSONArray("units").length())
        notes.remove("failures") // as they were, and as it writes them
        file.writeText(notes.toString())
        val units = case.units("npu" to "none")
        assertEquals(UnitKind.CPU, case.ladder(store(), hour = 99).open(units).unit.kind)
        assertEquals(0, units.first().numOpened)
    }

    @Test
    fun failureStaysKnownWhereNothingPassed() {
        val case = case("a stall, then a crash at load")
        assertFailsWith<KindException> { case.ladder(store()).open(case.units("cpu" to "load")) }
        assertEquals(UnitKind.CPU, case.ladder(store()).open(case.units()).unit.kind)
        assertEquals(UnitKind.CPU, case.ladder(store(), hour = 99).open(case.units("npu" to "none")).unit.kind)
    }

    @Test
    fun climbEndsWhereItsCallerSaysSo() {
        val case = case("NaN, then a mirrored trajectory")
        val units = case.units()
        var rungs = 0
        assertFailsWith<IllegalStateException> { case.ladder().open(units) { check(rungs++ == 0) } }
        assertEquals(listOf(1, 0, 0), units.map { it.numOpened })
    }

    @Test
    fun whereNothingPassedAllIsTriedAgainAtTheNextStart() {
        val case = case("the NPU is right")
        repeat(2) { store().open("ab".repeat(32)).begin("toy-gpu") }
        val full = case.units("npu" to "load", "gpu" to "load", "cpu" to "load")
        assertFailsWith<KindException> { case.ladder(store()).open(full) }
        val generator = case.ladder(store()).open(case.units("npu" to "nan", "gpu" to "none", "cpu" to "none"))
        assertEquals(UnitKind.CPU, generator.unit.kind, "the GPU ended the app")
        assertEquals("latents that are no numbers", generator.refusedUnits.first().reason)
    }

    @Test
    fun damagedNotesAreMadeAnew() {
        val case = case("the NPU is right")
        case.ladder(store()).open(case.units())
        val file = folder.listFiles()!!.single()
        for (text in listOf("", "[]", file.readText().dropLast(9), file.readText().replace("npu", "tpu"))) {
            file.writeText(text)
            val generator = case.ladder(store()).open(case.units())
            assertEquals(UnitKind.NPU, generator.unit.kind, text)
        }
    }

    @Test
    fun forcedUnitIsTheOnlyOneAndStillChecked() {
        val case = case("NaN, then a mirrored trajectory")
        assertEquals(UnitKind.CPU, case.ladder().open(case.units(), forced = "TOY-cpu").unit.kind)
        val error = assertFailsWith<KindException> { case.ladder().open(case.units(), forced = "toy-npu") }
        assertTrue("no numbers" in error.message!!, error.message)
        val unknown = assertFailsWith<KindException> { case.ladder().open(case.units(), forced = "tpu") }
        assertEquals("This device offers toy-npu, toy-gpu, toy-cpu.", unknown.hint)
    }

    @Test
    fun withoutGoldenDataTheCpuDrawsAndSaysSo() {
        val case = case("the NPU is right")
        val generator = Ladder(case.manifest, golden = null).open(case.units())
        assertEquals(UnitKind.CPU, generator.unit.kind)
        assertEquals("not checked: the bundle came without golden.safetensors", generator.unit.reason)
        assertNull(generator.unit.psnrDb)
    }

    @Test
    fun goldenDataOfAnotherBundleIsRefused() {
        val case = case("the NPU is right")
        val bytes = Base64.getDecoder().decode(case.json.getString("golden"))
        for (wrong in listOf(bytes.copyOf(bytes.size - 4), bytes.copyOf(20), byteArrayOf())) {
            assertFailsWith<KindException> { Golden.read(ByteBuffer.wrap(wrong), case.manifest) }
        }
        val longer = Manifest.parse(case.json.getJSONObject("manifest").put("steps", 5).toString())
        assertFailsWith<KindException> { Golden.read(ByteBuffer.wrap(bytes), longer) }
    }

    @Test
    fun everyUnitIsMeasuredOverTheWholeTrajectory() {
        val case = case("NaN, then a mirrored trajectory")
        val measured = case.units().map { case.ladder().measure(it, case.manifest.steps) }
        assertEquals(listOf(false, false, true), measured.map { it.isTaken })
        assertEquals(listOf(4, 4, 4), measured.map { it.steps })
        val json = measured.last().toJson()
        assertEquals("cpu", json.getString("kind"))
        for (name in listOf("psnr_db", "step_ms", "first_load_ms", "peak_memory_bytes")) assertTrue(json.has(name), name)
    }
}
