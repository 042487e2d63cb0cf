import XCTest

@testable import KindRuntime

/// Units that draw wrong are refused, whatever is wrong with them; `vectors.json` says which, see `mobile_ladders.py`.
final class LadderTests: XCTestCase {
    private var vectors: Vectors!
    private var folder: URL!

    override func setUpWithError() throws {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        vectors = try Vectors(contentsOf: file)
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    }

    override func tearDown() {
        try? FileManager.default.removeItem(at: folder)
    }

    private func store(app: String = "1", system: String = "17.4") -> UnitStore {
        UnitStore(folder: folder, appVersion: app, systemVersion: system)
    }

    private func ladder(_ vector: Vectors.Ladder, _ store: UnitStore? = nil, hour: Int = 0) throws -> Ladder {
        Ladder(
            manifest: vector.manifest, golden: try Golden(vector.golden, for: vector.manifest),
            notes: store?.notes(of: "abcd") ?? UnitNotes(), timeLimit: .milliseconds(300),
            now: { Date(timeIntervalSince1970: Double(hour) * 3600) })
    }

    /// With `changed` in place of the faults of the vectors.
    private func units(_ vector: Vectors.Ladder, _ changed: [UnitKind: String] = [:]) -> [ToyUnit] {
        UnitKind.allCases.compactMap { kind in
            vector.faults[kind].map { ToyUnit(manifest: vector.manifest, kind: kind, fault: changed[kind] ?? $0) }
        }
    }

    func testWrongUnitsAreRefusedAndTheFirstRightOneDraws() async throws {
        for vector in vectors.ladders {
            let units = Array(units(vector).reversed())  // the ladder sorts
            guard vector.expected.contains(where: \.isTaken) else {
                do {
                    _ = try await ladder(vector).open(units)
                    XCTFail(vector.what)
                } catch let error as KindError {
                    for found in vector.expected { XCTAssertTrue(error.message.contains("toy-\(found.kind.rawValue)")) }
                }
                continue
            }
            let generator = try await ladder(vector).open(units)
            let tried = generator.refusedUnits + [generator.unit]
            XCTAssertEqual(tried.map(\.kind), vector.expected.map(\.kind), vector.what)
            for (unit, found) in zip(tried, vector.expected) {
                XCTAssertEqual(unit.isTaken, found.isTaken, vector.what)
                XCTAssertEqual(unit.reason == nil, unit.isTaken, vector.what)
                XCTAssertEqual(unit.psnrDb == nil, found.psnrDb == nil, vector.what)
                XCTAssertEqual(unit.psnrDb ?? 0, found.psnrDb ?? 0, accuracy: 0.05, vector.what)
            }
        }
    }

    func testReasonsSayWhatWasWrong() async throws {
        var reasons: [String: String] = [:]
        for vector in vectors.ladders where vector.what != "nothing is right" {
            for unit in try await ladder(vector).open(units(vector)).refusedUnits {
                reasons[vector.faults[unit.kind]!] = unit.reason
            }
        }
        XCTAssertEqual(reasons["nan"], "latents that are no numbers")
        XCTAssertEqual(reasons["mirrored"], "latents of 12.0 dB, expected 35 dB")
        XCTAssertTrue(reasons["picture"]?.hasPrefix("a picture of") ?? false)
        XCTAssertEqual(reasons["stall"], "it gave nothing in 0.3 s")
        XCTAssertEqual(reasons["load"], "the driver is missing")
        XCTAssertEqual(reasons["step"], "the driver was lost")
        XCTAssertEqual(reasons["rounded"], "latents of 58.0 dB, expected 60 dB")
    }

    func testUnitThatComputesInHalvesIsHeldToHalves() async throws {
        let vector = try vectors.ladder("rounded: too little for fp32")
        var units = units(vector)
        units[0].isHalf = true
        let generator = try await ladder(vector).open(units)
        XCTAssertEqual(generator.unit.kind, .gpu)
    }

    func testWhatWasFoundIsKeptUntilAppOrSystemChange() async throws {
        let vector = try vectors.ladder("NaN, then a mirrored trajectory")
        let first = try await ladder(vector, store()).open(units(vector))
        let mended = units(vector, [.npu: "none"])
        let again = try await ladder(vector, store()).open(mended)
        XCTAssertEqual(again.unit, first.unit)
        XCTAssertEqual(again.refusedUnits, first.refusedUnits)
        for (unit, times) in zip(mended, [0, 0, 1]) {
            let opened = await unit.opened.value
            XCTAssertEqual(opened, times, unit.name)
        }
        let updated = try await ladder(vector, store(system: "18.0")).open(units(vector, [.npu: "none"]))
        XCTAssertEqual(updated.unit.kind, .npu)
        let newer = try await ladder(vector, store(app: "2")).open(units(vector))
        XCTAssertEqual(newer.unit.kind, .cpu)
    }

    func testUnitThatASystemUpdateBreaksIsRefusedThen() async throws {
        let vector = try vectors.ladder("the NPU is right")
        let before = try await ladder(vector, store()).open(units(vector))
        XCTAssertEqual(before.unit.kind, .npu)
        let broken = units(vector, [.npu: "zeros", .gpu: "none"])
        let after = try await ladder(vector, store(system: "18.0")).open(broken)
        XCTAssertEqual(after.unit.kind, .gpu)
    }

    func testUnitThatNoLongerOpensIsRefused() async throws {
        let vector = try vectors.ladder("the NPU is right")
        _ = try await ladder(vector, store()).open(units(vector))
        let generator = try await ladder(vector, store()).open(units(vector, [.npu: "load", .gpu: "none"]))
        XCTAssertEqual(generator.unit.kind, .gpu)
        XCTAssertEqual(generator.refusedUnits.map(\.reason), ["the driver is missing"])
    }

    func testDamagedNotesAreMadeAnew() async throws {
        let vector = try vectors.ladder("the NPU is right")
        _ = try await ladder(vector, store()).open(units(vector))
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        XCTAssertEqual(names.count, 1)
        let file = folder.appendingPathComponent(names[0])
        let text = try String(contentsOf: file, encoding: .utf8)
        for damaged in ["", "[]", String(text.dropLast(9)), text.replacingOccurrences(of: "npu", with: "tpu")] {
            try Data(damaged.utf8).write(to: file)
            let generator = try await ladder(vector, store()).open(units(vector))
            XCTAssertEqual(generator.unit.kind, .npu, damaged)
        }
    }

    func testUnitThatEndedTheAppTwiceIsNotTriedAgain() async throws {
        let vector = try vectors.ladder("the NPU is right")
        for _ in 0..<2 { await store().notes(of: "abcd").begin("toy-npu") }
        let units = units(vector, [.gpu: "none"])
        let generator = try await ladder(vector, store()).open(units)
        XCTAssertEqual(generator.unit.kind, .gpu)
        XCTAssertEqual(generator.refusedUnits.first?.reason, "the app ended 2 times while it was tried")
        let opened = await units[0].opened.value
        XCTAssertEqual(opened, 0)
    }

    func testKeptUnitThatEndsTheAppWhenItIsOpenedIsRefusedInTheEnd() async throws {
        let vector = try vectors.ladder("the NPU is right")
        let right = units(vector, [.gpu: "none"])
        _ = try await ladder(vector, store()).open(right)
        for _ in 0..<2 { await store().notes(of: "abcd").begin("toy-npu") }
        let generator = try await ladder(vector, store()).open(right)
        XCTAssertEqual(generator.unit.kind, .gpu)
        XCTAssertEqual(generator.refusedUnits.first?.reason, "the app ended 2 times while it was tried")
        let opened = await right[0].opened.value
        XCTAssertEqual(opened, 1)
    }

    func testOneEndOfTheAppIsForgottenOnceAUnitOpens() async throws {
        let vector = try vectors.ladder("the NPU is right")
        for _ in 0..<4 {
            await store().notes(of: "abcd").begin("toy-npu")
            let generator = try await ladder(vector, store()).open(units(vector))
            XCTAssertEqual(generator.unit.kind, .npu)
        }
    }

    func testUnitThatGaveNothingIsTriedOnceMoreADayLater() async throws {
        let vector = try vectors.ladder("a stall, then a crash at load")
        for failures in vectors.failures {
            for start in failures.starts {
                let units = units(vector, [.npu: start.fault])
                let generator = try await ladder(vector, store(), hour: start.hour).open(units)
                XCTAssertEqual(generator.unit.kind, start.takes, "\(failures.what), hour \(start.hour)")
                let opened = await units[0].opened.value
                XCTAssertEqual(opened > 0, start.isTried, "\(failures.what), hour \(start.hour)")
            }
            try FileManager.default.removeItem(at: folder)
        }
    }

    func testNotesOfAnEarlierVersionAreReadAndItReadsTheseOnes() async throws {
        let vector = try vectors.ladder("a stall, then a crash at load")
        _ = try await ladder(vector, store()).open(units(vector))
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        let file = folder.appendingPathComponent(names[0])
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: file))
        var notes = try XCTUnwrap(json as? [String: Any])
        XCTAssertEqual((notes["units"] as? [String: Any])?.count, 3)
        XCTAssertEqual((notes["attempts"] as? [String: Any])?.count, 0)
        XCTAssertNotNil(notes.removeValue(forKey: "failures"))  // as they were, and as it writes them
        try JSONSerialization.data(withJSONObject: notes).write(to: file)
        let units = units(vector, [.npu: "none"])
        let generator = try await ladder(vector, store(), hour: 99).open(units)
        XCTAssertEqual(generator.unit.kind, .cpu)
        let opened = await units[0].opened.value
        XCTAssertEqual(opened, 0)
    }

    func testFailureStaysKnownWhereNothingPassed() async throws {
        let vector = try vectors.ladder("a stall, then a crash at load")
        do {
            _ = try await ladder(vector, store()).open(units(vector, [.cpu: "load"]))
            XCTFail("nothing could be opened")
        } catch is KindError {}
        _ = try await ladder(vector, store()).open(units(vector))
        let generator = try await ladder(vector, store(), hour: 99).open(units(vector, [.npu: "none"]))
        XCTAssertEqual(generator.unit.kind, .cpu)
    }

    func testCancellingEndsTheClimb() async throws {
        let vector = try vectors.ladder("NaN, then a mirrored trajectory")
        let (ladder, units) = (try ladder(vector), units(vector))
        let opening = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await ladder.open(units)
        }
        do {
            _ = try await opening.value
            XCTFail("a cancelled task opened a generator")
        } catch is CancellationError {}
        let opened = await units[2].opened.value
        XCTAssertEqual(opened, 0)
    }

    func testWhereNothingPassedAllIsTriedAgainAtTheNextStart() async throws {
        let vector = try vectors.ladder("the NPU is right")
        let full = units(vector, [.npu: "load", .gpu: "load", .cpu: "load"])
        for _ in 0..<2 { await store().notes(of: "abcd").begin("toy-gpu") }
        do {
            _ = try await ladder(vector, store()).open(full)
            XCTFail("nothing could be opened")
        } catch let error as KindError {
            XCTAssertTrue(error.message.contains("the driver is missing"), error.message)
        }
        let mended = units(vector, [.npu: "nan", .gpu: "none", .cpu: "none"])
        let generator = try await ladder(vector, store()).open(mended)
        XCTAssertEqual(generator.unit.kind, .cpu, "the GPU ended the app")
        XCTAssertEqual(generator.refusedUnits.first?.reason, "latents that are no numbers")
    }

    func testForcedUnitIsTheOnlyOneAndStillChecked() async throws {
        let vector = try vectors.ladder("NaN, then a mirrored trajectory")
        let generator = try await ladder(vector).open(units(vector), forced: .cpu)
        XCTAssertEqual(generator.unit.kind, .cpu)
        do {
            _ = try await ladder(vector).open(units(vector), forced: .npu)
            XCTFail("a wrong unit was taken")
        } catch let error as KindError {
            XCTAssertTrue(error.message.contains("no numbers"), error.message)
        }
    }

    func testWithoutGoldenDataTheCpuDrawsAndSaysSo() async throws {
        let vector = try vectors.ladder("the NPU is right")
        let generator = try await Ladder(manifest: vector.manifest, golden: nil).open(units(vector))
        XCTAssertEqual(generator.unit.kind, .cpu)
        XCTAssertEqual(generator.unit.reason, "not checked: the bundle came without golden.safetensors")
        XCTAssertNil(generator.unit.psnrDb)
    }

    func testGoldenDataOfAnotherBundleIsRefused() throws {
        let vector = try vectors.ladder("the NPU is right")
        for wrong in [vector.golden.dropLast(4), vector.golden.prefix(20), Data()] {
            XCTAssertThrowsError(try Golden(wrong, for: vector.manifest)) { XCTAssertTrue($0 is KindError, "\($0)") }
        }
    }

    func testEveryUnitIsMeasuredOverTheWholeTrajectory() async throws {
        let vector = try vectors.ladder("NaN, then a mirrored trajectory")
        var found: [Bool] = []
        for unit in units(vector) {
            let measured = try await ladder(vector).measure(unit, steps: vector.manifest.steps)
            XCTAssertEqual(measured.steps, 4)
            found.append(measured.isTaken)
        }
        XCTAssertEqual(found, [false, false, true])
    }
}
