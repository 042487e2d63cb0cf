import CoreGraphics
import Foundation
import KindRuntime
import Observation

/// What the screen shows, and what it can ask for.
@MainActor @Observable
final class Studio {
    enum Phase: Equatable {
        case opening
        case ready
        case drawing(step: Int, of: Int)
        case measuring
        case failed(String)
    }

    private(set) var phase = Phase.opening
    var isIdle: Bool { generator != nil && (phase == .ready || hasFailed) }
    private(set) var classes: [ClassInfo] = []
    private(set) var unit: String?
    private(set) var image: CGImage?
    private(set) var drawingTime: Duration?
    private(set) var results: URL?

    private var bundle: KindBundle?
    private var generator: KindGenerator?
    private var drawing: Task<Void, Never>?

    /// Opens the bundle that came with the app; the first time, Core ML compiles it.
    func open() async {
        guard generator == nil else { return }
        await attempt {
            let url = Bundle.module.url(forResource: "model", withExtension: "kind")
            let bundle = try KindBundle(contentsOf: url ?? Bundle.module.bundleURL.appending(path: "model.kind"))
            let generator = try await KindGenerator(bundle: bundle)
            self.generator = generator
            unit = generator.unit.description
            classes = bundle.manifest.classes
            self.bundle = bundle
        }
    }

    func draw(_ info: ClassInfo, seed: UInt64) {
        guard let generator, isIdle else { return }
        phase = .drawing(step: 0, of: generator.manifest.steps)
        drawing = Task {
            await attempt {
                let clock = ContinuousClock()
                let start = clock.now
                for try await preview in try generator.generate(class: info.id, seed: seed) {
                    image = preview.picture.cgImage
                    phase = .drawing(step: preview.step, of: preview.steps)
                }
                drawingTime = clock.now - start
            }
        }
    }

    func stop() {
        drawing?.cancel()
    }

    /// Measures the bundle and writes what `kind-bench import` reads.
    func measure() async {
        guard let bundle, isIdle else { return }
        phase = .measuring
        await attempt {
            let measured = try await BenchmarkResults.measure(bundle)
            let file = URL.documentsDirectory.appending(path: "results.json")
            try measured.json.write(to: file, options: .atomic)
            results = file
        }
    }

    private var hasFailed: Bool {
        if case .failed = phase { true } else { false }
    }

    private func attempt(_ work: () async throws -> Void) async {
        do {
            try await work()
            phase = .ready
        } catch is CancellationError {
            phase = .ready
        } catch {
            let hint = (error as? LocalizedError)?.recoverySuggestion ?? ""
            phase = .failed("\(error.localizedDescription) \(hint)")
        }
    }
}
