#if canImport(CoreML)
import XCTest

@testable import KindRuntime

/// Core ML itself, where `KIND_BUNDLE` names a bundle and `KIND_RGB` the bytes of what `kind-run --seed 7` drew of its
/// first class.
final class CoreMLTests: XCTestCase {
    private func bundleAndPixels() throws -> (KindBundle, [UInt8]) {
        let environment = ProcessInfo.processInfo.environment
        guard let bundle = environment["KIND_BUNDLE"], let pixels = environment["KIND_RGB"] else {
            throw XCTSkip("KIND_BUNDLE and KIND_RGB name no bundle and picture")
        }
        let rgb = try Data(contentsOf: URL(fileURLWithPath: pixels))
        return (try KindBundle(contentsOf: URL(fileURLWithPath: bundle)), [UInt8](rgb))
    }

    func testPictureIsThatOfKindRun() async throws {
        let (bundle, expected) = try bundleAndPixels()
        let generator = try await KindGenerator(bundle: bundle, computeUnits: .cpuOnly)
        let picture = try await generator.generate(class: bundle.manifest.classes[0].id, seed: 7).picture()
        XCTAssertEqual(picture.pixels.count, expected.count)
        let errors = zip(picture.pixels, expected).map { pow(Double($0) - Double($1), 2) }
        let meanError = errors.reduce(0, +) / Double(errors.count)
        XCTAssertGreaterThan(20 * log10(255 / max(meanError.squareRoot(), 1e-6)), 35, "dB")
        XCTAssertNotNil(picture.cgImage)
    }

    func testDeviceIsMeasured() async throws {
        let (bundle, _) = try bundleAndPixels()
        let results = try await BenchmarkResults.measure(bundle, units: [.gpu, .cpu], repeats: 3, warmup: 1)
        XCTAssertEqual(results.units.map(\.kind), [.gpu, .cpu])
        XCTAssertEqual(results.cases.count, results.units.filter(\.isTaken).count)
        XCTAssertGreaterThan(results.cases[0].medianStepMs, 0)
    }

    func testLadderEndsOnAUnitThatDrawsRight() async throws {
        let (bundle, _) = try bundleAndPixels()
        let generator = try await KindGenerator(bundle: bundle, store: nil)
        XCTAssertTrue(generator.unit.isTaken)
        XCTAssertGreaterThan(try XCTUnwrap(generator.unit.psnrDb), 35)
        for unit in generator.refusedUnits { XCTAssertNotNil(unit.reason, unit.name) }
    }
}
#endif
