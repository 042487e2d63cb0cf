package dev.kind.runtime

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import kotlin.concurrent.thread
import kotlin.math.min

/**
 * A compute unit as an engine offers it. A further engine joins the ladder by listing its own.
 *
 * @property target the bundle's target that it runs.
 * @property isHalf whether it computes in 16 bits whatever the programs are written in.
 */
internal interface Provider {
    val name: String
    val kind: UnitKind
    val target: String
    val isHalf: Boolean get() = false

    /** Opens the programs. Whatever it throws is why the unit is refused. */
    fun open(): Programs
}

/**
 * Goes down from the NPU to the first compute unit that computes what the eager model does.
 *
 * @param golden null where the bundle brings none: nothing can be checked, and the CPU draws.
 * @param timeLimitMs of a unit, first load included.
 * @param clock milliseconds since 1970: a unit that failed once is tried again after a day.
 */
internal class Ladder(
    private val manifest: Manifest,
    private val golden: Golden?,
    private val notes: UnitStore.Notes = UnitStore.Notes(null),
    private val timeLimitMs: Long = 120_000,
    private val clock: () -> Long = System::currentTimeMillis,
) {
    /** A unit and, where it passes, its opened programs; it [hasFailed] where it gave nothing, right or wrong. */
    private class Rung(val unit: ComputeUnit, val programs: Programs? = null, val hasFailed: Boolean = false)

    /**
     * The generator on the first unit that passes.
     *
     * @param forced the name of the only unit to try.
     * @param onRung called before each unit; what it throws ends the climb.
     */
    fun open(providers: List<Provider>, forced: String? = null, onRung: () -> Unit = {}): KindGenerator {
        val rungs = providers.filter { forced == null || it.name.equals(forced, ignoreCase = true) }.sortedBy { it.kind }
        if (rungs.isEmpty()) {
            val held = providers.joinToString { it.name }
            throw KindException("there is no compute unit '$forced' here", "This device offers $held.")
        }
        if (golden == null) return openUnchecked(rungs.last())
        val refused = mutableListOf<ComputeUnit>()
        for (provider in rungs) {
            onRung()
            val rung = check(provider)
            if (rung.programs != null) return KindGenerator(manifest, rung.programs, rung.unit, refused)
            refused += rung.unit
        }
        // a full disk or a damaged file is no property of a unit: the next start tries again what did not end the app
        notes.forget(refused.filter { it.reason != ENDED }.map { it.name })
        throw KindException(
            "no compute unit draws what the bundle's model does: ${refused.joinToString("; ")}",
            "Export the bundle again; kind-run says whether its programs are right elsewhere.",
        )
    }

    /** Holds a unit against [steps] steps, whatever is known of it; closed again. */
    fun measure(provider: Provider, steps: Int): ComputeUnit {
        val rung = if (golden == null) Rung(unchecked(provider)) else climb(provider, golden, steps)
        rung.programs?.close()
        return rung.unit
    }

    private fun openUnchecked(provider: Provider): KindGenerator =
        KindGenerator(manifest, provider.open(), unchecked(provider))

    private fun unchecked(provider: Provider) = ComputeUnit(
        provider.name, provider.kind, provider.target, isTaken = true,
        reason = "not checked: the bundle came without ${Golden.FILE}",
    )

    private fun check(provider: Provider): Rung {
        val now = clock()
        val known = notes[provider.name]
        if (known != null && !known.isTaken && !notes.isDue(provider.name, now)) return Rung(known)
        val rung = when {
            notes.attempts(provider.name) >= MAX_ATTEMPTS -> Rung(refused(provider, ENDED))
            else -> {
                notes.begin(provider.name)
                if (known != null && known.isTaken) attempt(provider) { Rung(known, provider.open()) }
                else climb(provider, checkNotNull(golden), Golden.fewSteps(manifest))
            }
        }
        return rung.also { notes.put(it.unit, failedAtMs = now.takeIf { rung.hasFailed }) }
    }

    private fun climb(provider: Provider, golden: Golden, steps: Int) =
        attempt(provider) { hold(provider, golden, steps) }

    private fun attempt(provider: Provider, work: () -> Rung): Rung = try {
        limit(work) { it.programs?.close() }
    } catch (error: Throwable) { // a driver's library that is not there is an Error
        Rung(refused(provider, describe(error)), hasFailed = true)
    }

    private fun hold(provider: Provider, golden: Golden, steps: Int): Rung {
        val start = System.nanoTime()
        val programs = provider.open()
        try {
            val loadMs = millisecondsSince(start)
            val agreement = golden.hold(KindGenerator(manifest, programs), steps)
            val reason = findFault(agreement, provider)
            val unit = ComputeUnit(
                provider.name, provider.kind, provider.target, reason == null, steps, agreement.latentsDb,
                agreement.stepsMs.sorted()[agreement.stepsMs.size / 2], loadMs, memoryBytes("VmHWM"), reason,
            )
            if (reason != null) programs.close()
            return Rung(unit, programs.takeIf { reason == null })
        } catch (error: Throwable) {
            programs.close()
            throw error
        }
    }

    private fun findFault(agreement: Golden.Agreement, provider: Provider): String? {
        val target = manifest.target(provider.target)
        val isExact = target.precision == "fp32" && !provider.isHalf
        val latentsDb = min(if (isExact) EXACT_DB else HALF_DB, target.thresholdDb)
        val pictureDb = min(HALF_DB, target.thresholdDb) // of bytes: no more than 59 dB even of the right numbers
        fun tell(what: String, db: Double, expected: Double) =
            if (db <= -MAX_DB) "$what that are no numbers" else "$what of %.1f dB, expected %.0f dB".format(null, db, expected)
        return when {
            !(agreement.latentsDb >= latentsDb) -> tell("latents", agreement.latentsDb, latentsDb)
            agreement.pictureDb != null && !(agreement.pictureDb >= pictureDb) ->
                tell("a picture", agreement.pictureDb, pictureDb)
            else -> null
        }
    }

    private fun refused(provider: Provider, reason: String) =
        ComputeUnit(provider.name, provider.kind, provider.target, isTaken = false, reason = reason)

    private fun describe(error: Throwable) = error.message ?: error.javaClass.simpleName

    /** Runs [work] in a thread that is left behind when it does not end in time; what it opens then is [dropped]. */
    private fun <T> limit(work: () -> T, dropped: (T) -> Unit): T {
        val done = CompletableFuture<T>()
        thread(isDaemon = true, name = "kind-unit") {
            runCatching(work).fold({ if (!done.complete(it)) dropped(it) }, done::completeExceptionally)
        }
        try {
            return done.get(timeLimitMs, TimeUnit.MILLISECONDS)
        } catch (error: ExecutionException) {
            throw error.cause ?: error
        } catch (_: TimeoutException) {
            val late = KindException("it gave nothing in ${timeLimitMs / 1000.0} s", "Use another compute unit.")
            if (done.completeExceptionally(late)) throw late
            return done.get() // it ended just now
        }
    }

    private companion object {
        const val EXACT_DB = 60.0
        const val HALF_DB = 35.0
        const val MAX_ATTEMPTS = 2
        const val ENDED = "the app ended $MAX_ATTEMPTS times while it was tried"
    }
}

/**
 * What [open] opens, away from the caller's thread. Where the caller is cancelled meanwhile nobody takes it: it is closed.
 */
internal suspend fun opening(open: CoroutineScope.() -> KindGenerator): KindGenerator {
    var opened: KindGenerator? = null
    try {
        return withContext(Dispatchers.IO) { open().also { opened = it } }
    } catch (error: CancellationException) {
        opened?.close()
        throw error
    }
}
