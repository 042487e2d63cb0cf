import XCTest

@testable import KindRuntime

/// `vectors.json` is written by the Python runtime: what it does, this package must do.
final class VectorTests: XCTestCase {
    private var vectors: Vectors!

    override func setUpWithError() throws {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        vectors = try Vectors(contentsOf: file)
    }

    func testNoiseIsTheSame() {
        for noise in vectors.noise {
            let words = (0..<4).map { StartNoise.philox(block: $0, seed: noise.seed) }
            XCTAssertEqual(words.flatMap { [$0.0, $0.1, $0.2, $0.3] }, noise.words, "seed \(noise.seed)")
            let normals = StartNoise.normals(seed: noise.seed, count: 16)
            assertClose(normals, noise.normals, "seed \(noise.seed)")
            XCTAssertEqual(StartNoise.normals(seed: noise.seed, count: 5), Array(normals.prefix(5)))
        }
    }

    func testManifestsAreReadOrRefused() throws {
        for document in vectors.manifests {
            let parse = { try Manifest.parse(Data(document.text.utf8)) }
            if document.isRefused {
                XCTAssertThrowsError(try parse(), document.what) { XCTAssertTrue($0 is KindError, "\($0)") }
            } else {
                XCTAssertEqual(try parse().classes[1].names, ["koala", "koala bear"])
            }
        }
    }

    func testClassesAreFoundAsInPython() throws {
        let manifest = try vectors.manifest()
        for (manifest, query, index) in vectors.classes.map({ (manifest, $0.query, $0.index) }) + vectors.alike {
            if let index {
                XCTAssertEqual(try manifest.index(ofClass: query), index, query)
            } else {
                XCTAssertThrowsError(try manifest.index(ofClass: query), query)
            }
        }
        XCTAssertThrowsError(try manifest.index(ofClass: "wombat")) {
            XCTAssertEqual(($0 as? KindError)?.hint, "The bundle holds giant panda, koala.")
        }
        XCTAssertThrowsError(try manifest.target("executorch"))
    }

    func testPacksAreReadOrRefused() throws {
        let base = try ToyGenerator(vectors.loop("a pack").manifest)
        for file in vectors.packs {
            if file.isRefused {
                XCTAssertThrowsError(try Pack(file.data), file.what) { error in
                    let message = (error as? KindError)?.message ?? ""
                    XCTAssertTrue(message.contains(file.says) || file.says.isEmpty, "\(file.what): \(error)")
                    XCTAssertTrue(error is KindError, "\(error)")
                }
            } else if file.doesNotFit {
                XCTAssertThrowsError(try base.generator.generate(pack: Pack(file.data), seed: 0), file.what)
            } else {
                let pack = try Pack(file.data)
                XCTAssertEqual(pack.info.name, "lemon")
                XCTAssertEqual(pack.tensors["tailor"], Tensor([0.33325195, -5.9604645e-8, 65504], shape: [1, 3]))
            }
        }
    }

    func testPackInPartOfALargerBufferIsTheSame() throws {
        let data = try XCTUnwrap(vectors.packs.first).data
        let part = (Data([1, 2, 3]) + data)[3...]
        XCTAssertEqual(try Pack(part).tensors, try Pack(data).tensors)
    }

    func testPictureIsTheSame() async throws {
        for loop in vectors.loops {
            let toy = try ToyGenerator(loop.manifest)
            var previews: [Preview] = []
            for try await preview in try toy.generate(loop) { previews.append(preview) }
            let decoded = await toy.decode.latents
            XCTAssertEqual(decoded.count, loop.latents.count, loop.what)
            for (actual, expected) in zip(decoded, loop.latents) { assertClose(actual.values, expected, loop.what) }
            XCTAssertEqual(previews.map(\.step), Array(1...loop.latents.count), loop.what)
            XCTAssertEqual(previews.last?.picture.pixels, loop.rgb, loop.what)

            let picture = try await toy.generate(loop).picture()
            XCTAssertEqual(picture, previews.last?.picture, loop.what)
            var steps: [Int] = []
            for try await preview in try toy.generate(loop, previewEvery: 3) { steps.append(preview.step) }
            XCTAssertEqual(steps, [3, 4], loop.what)
            steps = []
            for try await preview in try toy.generate(loop, previewEvery: 0) { steps.append(preview.step) }
            XCTAssertEqual(steps, [4], loop.what)
        }
    }

    func testWrongKindsOfClassAreRefused() throws {
        let loop = try vectors.loop("a pack")
        XCTAssertThrowsError(try ToyGenerator(loop.manifest).generator.generate(class: "koala", seed: 0))
        let closed = try ToyGenerator(vectors.manifest()).generator
        XCTAssertThrowsError(try closed.generate(pack: Pack(XCTUnwrap(loop.pack)), seed: 0))
    }

    func testNothingIsComputedUntilItIsAskedFor() async throws {
        let toy = try ToyGenerator(vectors.manifest())
        for try await preview in try toy.generator.generate(class: "koala", seed: 1) where preview.step == 2 { break }
        let decoded = await toy.decode.latents
        XCTAssertEqual(decoded.count, 2)
    }

    func testCancellingStopsTheDrawing() async throws {
        let generator = try ToyGenerator(vectors.manifest()).generator
        let drawing = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await generator.generate(class: "koala", seed: 1).picture()
        }
        do {
            _ = try await drawing.value
            XCTFail("a cancelled task drew a picture")
        } catch is CancellationError {}
    }

    func testNumbersThatAreNotFiniteAreRefused() async throws {
        let manifest = try vectors.manifest()
        let programs = try await ToyUnit(manifest: manifest, kind: .cpu, fault: "nan").open()
        do {
            let generator = KindGenerator(manifest: manifest, programs: programs)
            _ = try await generator.generate(class: "koala", seed: 1).picture()
            XCTFail("no numbers made a picture")
        } catch let error as KindError {
            XCTAssertEqual(error.message, "seed 1 gives numbers that are not finite at guidance 1.5")
        }
    }

    func testGuidanceIsBoundedAsInPython() async throws {
        let generator = try ToyGenerator(vectors.manifest()).generator
        for wrong: Float in [.nan, .infinity, -.infinity, 100.5, -101] {
            XCTAssertThrowsError(try generator.generate(class: "koala", seed: 1, guidance: wrong)) {
                let message = "guidance is \(wrong), expected a finite number up to 100"
                XCTAssertEqual(($0 as? KindError)?.message, message)
            }
        }
        for right: Float in [100, -100, 0] {
            _ = try await generator.generate(class: "koala", seed: 1, guidance: right).picture()
        }
    }

    func testPackOfImpossibleSizesIsRefused() throws {
        for shape in ["[4611686018427387904, 4]", "[-1, -3]", "[9223372036854775807, 9223372036854775807, 0]"] {
            let entry = "{\"dtype\": \"F16\", \"shape\": \(shape), \"data_offsets\": [0, 6]}"
            let header = Data("{\"tailor\": \(entry)}".utf8)
            let data = Data([UInt8(header.count)] + [UInt8](repeating: 0, count: 7)) + header + Data(count: 6)
            let damaged = KindError("the file is not a whole pack", hint: "")
            let file = try Safetensors(data, subject: "the pack", damaged: damaged)
            XCTAssertThrowsError(try file.read("tailor", as: .half), shape) { XCTAssertTrue($0 is KindError, "\($0)") }
        }
    }

    func testResultsHaveTheNamesOfTheirSchema() async throws {
        let toy = try ToyGenerator(vectors.loop("guidance in two steps").manifest)
        let times = try await Stopwatch(repeats: 3, warmup: 1).measure(toy.generator)
        let results = BenchmarkResults(
            created: Date(timeIntervalSince1970: 0), bundle: .init(name: "toy", manifestSha256: "ab"),
            machine: .init(
                system: "iOS 18.3", processor: "iPhone17,3", numCpus: 6, memoryBytes: 8, thermalState: "nominal",
                lowPowerMode: false),
            units: [
                .init(
                    name: "cpu-only", kind: .cpu, runtime: "coreml", isTaken: true, steps: 4, psnrDb: 70.5, stepMs: 1,
                    firstLoadMs: 2, peakMemoryBytes: 3)
            ],
            cases: [
                .init(
                    runtime: "coreml", engine: "Core ML", provider: "all", precision: "fp16", warmup: 1,
                    stepMs: times.step, stepUnguidedMs: times.stepUnguided, decodeMs: times.decode,
                    wholeImageMs: times.wholeImage, loadMs: .init(first: 1, again: 1), peakMemoryBytes: 1,
                    memoryMeasure: "phys_footprint")
            ])
        let json = try XCTUnwrap(JSONSerialization.jsonObject(with: results.json) as? [String: Any])
        XCTAssertEqual(json["created"] as? String, "1970-01-01T00:00:00Z")
        XCTAssertEqual(json["bundle"] as? [String: String], ["name": "toy", "manifest_sha256": "ab"])
        let unit = try XCTUnwrap((json["units"] as? [[String: Any]])?.first)
        let names = [
            "first_load_ms", "is_taken", "kind", "name", "peak_memory_bytes", "psnr_db", "runtime", "step_ms", "steps"
        ]
        XCTAssertEqual(unit.keys.sorted(), names)
        let measured = try XCTUnwrap((json["cases"] as? [[String: Any]])?.first)
        for name in ["step_ms", "step_unguided_ms", "decode_ms", "whole_image_ms"] {
            let spread = try XCTUnwrap(measured[name] as? [String: [Double]], name)
            XCTAssertEqual(spread["samples"]?.count, 3, name)
        }
    }

    private func assertClose(_ actual: [Float], _ expected: [Float], _ message: String) {
        XCTAssertEqual(actual.count, expected.count, message)
        for (a, b) in zip(actual, expected) { XCTAssertEqual(a, b, accuracy: 1e-5, message) }
    }
}
