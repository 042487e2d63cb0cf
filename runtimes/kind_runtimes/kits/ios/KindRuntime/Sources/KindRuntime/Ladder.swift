import Foundation

/// A compute unit as an engine offers it. A further engine joins the ladder by listing its own.
protocol Provider: Sendable {
    var name: String { get }
    var kind: UnitKind { get }
    /// The bundle's target that it runs.
    var target: String { get }
    /// Whether it computes in 16 bits whatever the programs are written in.
    var isHalf: Bool { get }

    /// Opens the programs. Whatever it throws is why the unit is refused.
    func open() async throws -> Programs
}

/// Goes down from the NPU to the first compute unit that computes what the eager model does.
struct Ladder: Sendable {
    private static let exactDb = 60.0
    private static let halfDb = 35.0
    private static let maxAttempts = 2
    private static let ended = "the app ended \(maxAttempts) times while it was tried"

    let manifest: Manifest
    /// nil where the bundle brings none: nothing can be checked, and the CPU draws.
    let golden: Golden?
    var notes = UnitNotes()
    /// Of a unit, first load included.
    var timeLimit = Duration.seconds(120)
    /// A unit that failed once is tried again after a day.
    var now: @Sendable () -> Date = { Date() }
    /// The most memory that this process held, where the system says it.
    var peakMemoryBytes: @Sendable () -> UInt64? = { nil }

    /// A unit and, where it passes, its opened programs; it has failed where it gave nothing, right or wrong.
    private struct Rung: Sendable {
        let unit: ComputeUnit
        var programs: Programs?
        var hasFailed = false
    }

    /// The generator on the first unit that passes; with `forced`, that kind of unit is the only one to try.
    func open(_ providers: [any Provider], forced: UnitKind? = nil) async throws -> KindGenerator {
        let order = UnitKind.allCases
        let rungs = order.flatMap { kind in providers.filter { $0.kind == kind && (forced ?? kind) == kind } }
        guard let last = rungs.last else {
            let held = providers.map(\.kind.rawValue).joined(separator: ", ")
            throw KindError(
                "there is no \(forced?.rawValue ?? "compute unit") here", hint: "This device offers \(held).")
        }
        guard let golden else {
            return KindGenerator(manifest: manifest, programs: try await last.open(), unit: unchecked(last))
        }
        var refused: [ComputeUnit] = []
        for provider in rungs {
            try Task.checkCancellation()
            let rung = await check(provider, golden)
            if let programs = rung.programs {
                return KindGenerator(manifest: manifest, programs: programs, unit: rung.unit, refusedUnits: refused)
            }
            refused.append(rung.unit)
        }
        // a full disk or a damaged file is no property of a unit: the next start tries again what did not end the app
        await notes.forget(refused.filter { $0.reason != Self.ended }.map(\.name))
        let reasons = refused.map(\.description).joined(separator: "; ")
        throw KindError(
            "no compute unit draws what the bundle's model does: \(reasons)",
            hint: "Export the bundle again; kind-run says whether its programs are right elsewhere.")
    }

    /// Holds a unit against `steps` steps, whatever is known of it.
    func measure(_ provider: any Provider, steps: Int) async -> ComputeUnit {
        guard let golden else { return unchecked(provider) }
        return await climb(provider, golden, steps).unit
    }

    private func unchecked(_ provider: any Provider) -> ComputeUnit {
        entry(of: provider, isTaken: true, reason: "not checked: the bundle came without \(Golden.file)")
    }

    private func entry(of provider: any Provider, isTaken: Bool, reason: String?) -> ComputeUnit {
        ComputeUnit(
            name: provider.name, kind: provider.kind, runtime: provider.target, isTaken: isTaken, reason: reason)
    }

    private func check(_ provider: any Provider, _ golden: Golden) async -> Rung {
        let (known, start) = (await notes.unit(provider.name), now())
        if let known, !known.isTaken, await !notes.isDue(provider.name, at: start) { return Rung(unit: known) }
        let rung: Rung
        if await notes.attempts(provider.name) < Self.maxAttempts {
            await notes.begin(provider.name)
            rung =
                if let known, known.isTaken {
                    await attempt(provider) { Rung(unit: known, programs: try await provider.open()) }
                } else {
                    await climb(provider, golden, Golden.fewSteps(of: manifest))
                }
        } else {
            rung = Rung(unit: entry(of: provider, isTaken: false, reason: Self.ended))
        }
        await notes.put(rung.unit, failedAt: rung.hasFailed ? start : nil)
        return rung
    }

    private func climb(_ provider: any Provider, _ golden: Golden, _ steps: Int) async -> Rung {
        await attempt(provider) { try await hold(provider, golden, steps) }
    }

    private func attempt(_ provider: any Provider, _ work: @escaping @Sendable () async throws -> Rung) async -> Rung {
        do {
            return try await limited(timeLimit, work)
        } catch {
            let unit = entry(of: provider, isTaken: false, reason: Self.describe(error))
            return Rung(unit: unit, hasFailed: true)
        }
    }

    private func hold(_ provider: any Provider, _ golden: Golden, _ steps: Int) async throws -> Rung {
        let clock = ContinuousClock()
        let start = clock.now
        let programs = try await provider.open()
        let loadMs = (clock.now - start) / .milliseconds(1)
        let agreement = try await golden.hold(KindGenerator(manifest: manifest, programs: programs), steps: steps)
        let reason = try findFault(agreement, provider)
        var unit = entry(of: provider, isTaken: reason == nil, reason: reason)
        unit.steps = steps
        unit.psnrDb = agreement.latentsDb
        unit.stepMs = agreement.stepsMs.sorted()[agreement.stepsMs.count / 2]
        unit.firstLoadMs = loadMs
        unit.peakMemoryBytes = peakMemoryBytes()
        return Rung(unit: unit, programs: reason == nil ? programs : nil)
    }

    private func findFault(_ agreement: Golden.Agreement, _ provider: any Provider) throws -> String? {
        let target = try manifest.target(provider.target)
        let isExact = target.precision == "fp32" && !provider.isHalf
        let latentsDb = min(isExact ? Self.exactDb : Self.halfDb, target.parity.thresholdDb)
        let pictureDb = min(Self.halfDb, target.parity.thresholdDb)  // of bytes: no more than 59 dB even where right
        let tell = { (what: String, db: Double, expected: Double) in
            db <= -Golden.maxDb
                ? "\(what) that are no numbers"
                : "\(what) of \(String(format: "%.1f", db)) dB, expected \(String(format: "%.0f", expected)) dB"
        }
        if !(agreement.latentsDb >= latentsDb) { return tell("latents", agreement.latentsDb, latentsDb) }
        if let db = agreement.pictureDb, !(db >= pictureDb) { return tell("a picture", db, pictureDb) }
        return nil
    }

    private static func describe(_ error: any Error) -> String {
        (error as? KindError)?.message ?? error.localizedDescription
    }
}

/// What `work` gives, or an error when it does not end in time: it is left behind then, and what it gives is dropped.
func limited<T: Sendable>(_ limit: Duration, _ work: @escaping @Sendable () async throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        let race = Race(continuation)
        let timer = Task.detached {
            try await Task.sleep(for: limit)
            let seconds = limit / .seconds(1)
            race.finish(
                .failure(KindError("it gave nothing in \(seconds) s", hint: "Use another compute unit.")))
        }
        Task.detached {
            do {
                race.finish(.success(try await work()))
            } catch {
                race.finish(.failure(error))
            }
            timer.cancel()
        }
    }
}

/// The first of several results resumes whoever waits; the others are dropped.
private final class Race<T: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var waiting: CheckedContinuation<T, any Error>?

    init(_ waiting: CheckedContinuation<T, any Error>) {
        self.waiting = waiting
    }

    func finish(_ result: Result<T, any Error>) {
        lock.lock()
        let first = waiting
        waiting = nil
        lock.unlock()
        first?.resume(with: result)
    }
}
