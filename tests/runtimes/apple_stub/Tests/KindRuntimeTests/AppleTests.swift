import CoreML
import CoreVideo
import CryptoKit
import XCTest

@testable import KindRuntime

/// What only runs beside Core ML, over a stand-in for it: opening, hashes, compiling, units, pictures and measuring.
final class AppleTests: XCTestCase {
    private var folder: URL!
    private var store: UnitStore!

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        store = UnitStore(folder: folder.appendingPathComponent("store"), appVersion: "1", systemVersion: "17.4")
        MLModel.numCompiled = 0
        MLModel.loaded = []
    }

    override func tearDown() {
        try? FileManager.default.removeItem(at: folder)
    }

    /// A bundle of a ladder of the vectors, with its golden data; its programs are the toys, with the faults of units.
    private func bundle(_ what: String, _ faults: [UnitKind: String] = [:], golden: Data? = nil) throws -> KindBundle {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as! [String: [[String: Any]]]
        let entry = try XCTUnwrap(json["ladders"]!.first { $0["what"] as? String == what })
        let text = String(decoding: try JSONSerialization.data(withJSONObject: entry["manifest"]!), as: UTF8.self)
        let named = text.replacingOccurrences(of: "a-target\\/", with: "coreml/").replacingOccurrences(
            of: "a-target/", with: "coreml/")
        var manifest = try JSONSerialization.jsonObject(with: Data(named.utf8)) as! [String: Any]
        let right = Data(base64Encoded: entry["golden"] as! String)!
        var files = ["golden.safetensors": right]
        for name in ["step", "decode", "step_unguided"] {
            // different in every test, as what was compiled is kept under the hash of a program's files
            files["coreml/\(name)/weights.bin"] = Data("\(name) \(folder.lastPathComponent)".utf8)
        }
        manifest["files"] = files.mapValues { ["sha256": SHA256.hexDigest(of: $0)] }
        files["golden.safetensors"] = golden ?? right
        files["manifest.json"] = try JSONSerialization.data(withJSONObject: manifest)
        for (path, data) in files {
            let place = folder.appendingPathComponent(path)
            try FileManager.default.createDirectory(
                at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
            try data.write(to: place)
        }
        let bundle = try KindBundle(contentsOf: folder)
        MLModel.run = toys(bundle.manifest, faults)
        return bundle
    }

    private func toys(
        _ manifest: Manifest, _ faults: [UnitKind: String]
    ) -> @Sendable (MLModel.Call) async throws -> [String: MLFeatureValue] {
        { call in
            let kind = UnitKind.allCases.first { "\(call.units.name)" == CoreMLProvider.name(of: $0) }!
            let programs = try await ToyUnit(manifest: manifest, kind: kind, fault: faults[kind] ?? "none").open()
            var inputs: [String: Tensor] = [:]
            for name in call.inputs.featureNames {
                let value = call.inputs.featureValue(for: name)!
                if let integers = value.shapedArrayValue(of: Int32.self) {
                    inputs[name] = Tensor(integers.scalars.map(Float.init), shape: integers.shape)
                } else if let floats = value.shapedArrayValue(of: Float.self) {
                    inputs[name] = Tensor(floats.scalars, shape: floats.shape)
                }
            }
            if call.program == "decode" {
                let picture = try await programs.decode.picture(of: inputs["latents"]!)
                let buffer = CVPixelBuffer(rgb: picture.pixels, width: picture.width, height: picture.height)
                return ["image": MLFeatureValue(pixelBuffer: buffer)]
            }
            let step = call.program == "step" ? programs.step : programs.stepUnguided!
            return try await step(inputs).mapValues {
                MLFeatureValue(shapedArray: MLShapedArray(scalars: $0.values, shape: $0.shape))
            }
        }
    }

    func testHashIsSha256() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        XCTAssertEqual(SHA256.hexDigest(of: Data("abc".utf8)), abc)
    }

    func testLadderGoesDownTheUnitsOfCoreML() async throws {
        let bundle = try bundle("guidance in two steps", [.npu: "nan", .gpu: "mirrored"])
        let generator = try await KindGenerator(bundle: bundle, store: store)
        XCTAssertEqual(generator.unit.name, "cpu-only")
        XCTAssertEqual(generator.refusedUnits.map(\.name), ["cpu-and-neural-engine", "cpu-and-gpu"])
        XCTAssertEqual(generator.refusedUnits[0].reason, "latents that are no numbers")
        XCTAssertEqual(generator.unit.peakMemoryBytes, 12_345_678)
        XCTAssertEqual(MLModel.numCompiled, 3, "each program once, for all units")
        let picture = try await generator.generate(class: "panda", seed: 7).picture()
        let image = try XCTUnwrap(picture.cgImage)
        XCTAssertEqual([UInt8](image.data), picture.pixels)
        XCTAssertEqual(image.width, picture.width)
    }

    func testNextStartOpensTheKeptUnitAndCompilesNothing() async throws {
        let bundle = try bundle("NaN, then a mirrored trajectory", [.npu: "zeros"])
        let first = try await KindGenerator(bundle: bundle, store: store)
        XCTAssertEqual(first.unit.kind, .gpu)
        (MLModel.numCompiled, MLModel.loaded) = (0, [])
        let again = try await KindGenerator(bundle: bundle, store: store)
        XCTAssertEqual(again.unit, first.unit)
        XCTAssertEqual(MLModel.numCompiled, 0)
        XCTAssertEqual(MLModel.loaded, [.cpuAndGPU, .cpuAndGPU])
        let updated = UnitStore(folder: store.folder, appVersion: "1", systemVersion: "18.0")
        let checked = try await KindGenerator(bundle: bundle, store: updated)
        XCTAssertEqual(checked.refusedUnits.map(\.kind), [.npu])
        XCTAssertTrue(MLModel.loaded.contains(.cpuAndNeuralEngine))
    }

    func testPackageThatTheSystemClearedInPartIsCompiledAgain() async throws {
        let bundle = try bundle("the NPU is right")
        let first = try await KindGenerator(bundle: bundle, store: store)
        XCTAssertEqual(first.unit.kind, .npu)
        let files = try bundle.files(of: "coreml/step").map(\.sha256).joined()
        let caches = try FileManager.default.url(
            for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let kept = "KindRuntime/\(SHA256.hexDigest(of: Data(files.utf8))).mlmodelc"
        try FileManager.default.removeItem(at: caches.appendingPathComponent("\(kept)/name"))
        MLModel.numCompiled = 0
        let again = try await KindGenerator(bundle: bundle, store: store)
        XCTAssertEqual(again.unit.kind, .npu, "\(again.refusedUnits)")
        XCTAssertEqual(MLModel.numCompiled, 1)
    }

    func testUnitThatCoreMLDoesNotUseIsRefusedBeforeItIsLoaded() async throws {
        let bundle = try bundle("NaN, then a mirrored trajectory")
        let usual = MLComputePlan.preferred
        defer { MLComputePlan.preferred = usual }
        MLComputePlan.preferred = { _ in .cpu(MLCPUComputeDevice()) }
        let generator = try await KindGenerator(bundle: bundle, store: nil)
        XCTAssertEqual(generator.unit.kind, .cpu)
        let reason = "Core ML plans to run the step on the CPU alone"
        XCTAssertEqual(generator.refusedUnits.map(\.reason), [reason, reason])
        XCTAssertEqual(Set(MLModel.loaded), [.cpuOnly])
    }

    func testForcedAndUncheckedUnits() async throws {
        let bundle = try bundle("NaN, then a mirrored trajectory", [.npu: "nan"])
        let forced = try await KindGenerator(bundle: bundle, only: .cpu, store: store)
        XCTAssertEqual(forced.unit.kind, .cpu)
        let past = try await KindGenerator(bundle: bundle, computeUnits: .cpuAndNeuralEngine)
        XCTAssertEqual(past.unit.reason, "not checked")
        XCTAssertEqual(past.unit.name, "cpu-and-neural-engine")
        XCTAssertEqual(past.unit.kind, .npu)
        await assertThrows("latents that are no numbers") {
            _ = try await KindGenerator(bundle: bundle, only: .npu, store: self.store)
        }
    }

    func testPointersAndChangedFilesAreNamed() async throws {
        let pointer = Data("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n".utf8)
        let what = "NaN, then a mirrored trajectory"
        let withoutGolden = try bundle(what, golden: pointer)
        await assertThrows("golden.safetensors is a Git LFS pointer") {
            _ = try await KindGenerator(bundle: withoutGolden)
        }
        for (data, says) in [(pointer, "is a Git LFS pointer"), (Data("changed".utf8), "the manifest expects")] {
            let bundle = try bundle(what)
            try data.write(to: folder.appendingPathComponent("coreml/step/weights.bin"))
            await assertThrows("coreml/step/weights.bin") { _ = try await KindGenerator(bundle: bundle, store: nil) }
            await assertThrows(says) { _ = try await KindGenerator(bundle: bundle, store: nil) }
        }
    }

    func testBundleWithoutGoldenDataDrawsOnTheCpu() async throws {
        let bundle = try bundle("NaN, then a mirrored trajectory")
        try FileManager.default.removeItem(at: folder.appendingPathComponent("golden.safetensors"))
        let generator = try await KindGenerator(bundle: bundle, store: store)
        XCTAssertEqual(generator.unit.name, "cpu-only")
        XCTAssertEqual(generator.unit.reason, "not checked: the bundle came without golden.safetensors")
    }

    func testPictureOfAnotherFormatIsRefused() {
        let pixels = [UInt8](repeating: 9, count: 12)
        XCTAssertNil(Picture(CVPixelBuffer(rgb: pixels, width: 2, height: 2, format: 32)))
        XCTAssertEqual(Picture(CVPixelBuffer(rgb: pixels, width: 2, height: 2))?.pixels, pixels)
    }

    /// `KIND_RESULTS` names the file that Python reads then.
    func testDeviceIsMeasured() async throws {
        let bundle = try bundle("guidance in two steps", [.npu: "zeros"])
        let results = try await BenchmarkResults.measure(bundle, repeats: 3, warmup: 1)
        XCTAssertEqual(results.units.map(\.isTaken), [false, true, true])
        XCTAssertEqual(results.units.map(\.steps), [4, 4, 4])
        XCTAssertEqual(results.cases.count, 2)
        let json = try XCTUnwrap(JSONSerialization.jsonObject(with: results.json) as? [String: Any])
        let machine = try XCTUnwrap(json["machine"] as? [String: Any])
        XCTAssertEqual(machine["processor"] as? String, "iPhone17,3")
        XCTAssertEqual(machine["thermal_state"] as? String, "nominal")
        if let file = ProcessInfo.processInfo.environment["KIND_RESULTS"] {
            try results.json.write(to: URL(fileURLWithPath: file))
        }
    }

    private func assertThrows(_ says: String, _ work: () async throws -> Void) async {
        do {
            try await work()
            XCTFail("nothing was thrown, expected \(says)")
        } catch {
            XCTAssertTrue((error as? KindError)?.message.contains(says) ?? false, "\(error)")
        }
    }
}

extension CoreMLProvider {
    static func name(of kind: UnitKind) -> String {
        switch kind {
        case .npu: "cpu-and-neural-engine"
        case .gpu: "cpu-and-gpu"
        case .cpu: "cpu-only"
        }
    }
}
