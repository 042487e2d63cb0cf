import Foundation

/// Measurements of a bundle on one device, in the JSON that `kind-bench import` reads.
public struct BenchmarkResults: Encodable, Sendable {
    let formatVersion = 1
    let kind = "measured"
    let madeBy = "KindRuntime 0.1.0"
    let created: Date
    let bundle: BundleName
    let machine: Machine
    /// Every compute unit that was held against the golden trajectory, with a reason for each refused one.
    public let units: [ComputeUnit]
    let cases: [Case]

    struct BundleName: Encodable, Sendable {
        let name: String
        let manifestSha256: String
    }

    struct Machine: Encodable, Sendable {
        let system: String
        let processor: String
        let numCpus: Int
        let memoryBytes: UInt64
        let thermalState: String?
        let lowPowerMode: Bool?
    }

    /// One way of running the bundle.
    public struct Case: Encodable, Sendable {
        let runtime: String
        let engine: String
        let provider: String
        let precision: String
        let process = "shared"
        let warmup: Int
        let stepMs: Samples
        let stepUnguidedMs: Samples?
        let decodeMs: Samples
        let wholeImageMs: Samples
        let loadMs: Load
        let peakMemoryBytes: UInt64?
        let memoryMeasure: String?

        /// Milliseconds of one step, the middle of all samples.
        public var medianStepMs: Double { stepMs.median }
        /// Milliseconds of one whole picture, the middle of all samples.
        public var medianImageMs: Double { wholeImageMs.median }
    }

    /// Milliseconds in the order of measuring, warm-up left out.
    struct Samples: Encodable, Sendable {
        let samples: [Double]

        var median: Double {
            let sorted = samples.sorted()
            let middle = sorted.count / 2
            return sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
        }
    }

    struct Load: Encodable, Sendable {
        let first: Double
        let again: Double
    }

    public var json: Data {
        get throws {
            let encoder = JSONEncoder()
            encoder.keyEncodingStrategy = .convertToSnakeCase
            encoder.dateEncodingStrategy = .iso8601
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            return try encoder.encode(self)
        }
    }
}

/// Times the programs of an opened bundle one call at a time.
struct Stopwatch {
    let repeats: Int
    let warmup: Int

    typealias Times = (
        step: BenchmarkResults.Samples, stepUnguided: BenchmarkResults.Samples?, decode: BenchmarkResults.Samples,
        wholeImage: BenchmarkResults.Samples
    )

    /// A step with guidance, one without where the bundle has them, a decode and a whole picture.
    func measure(_ generator: KindGenerator) async throws -> Times {
        let manifest = generator.manifest
        let run =
            try manifest.packBase == nil
            ? generator.generate(class: manifest.classes[0].id, seed: 0) : generator.generate(pack: nil, seed: 0)
        let start = run.start()
        let steps = 0..<manifest.steps
        let guided = steps.first(where: manifest.isGuided) ?? 0
        var unguided: BenchmarkResults.Samples?
        if let index = steps.first(where: { !manifest.isGuided($0) }) {
            unguided = try await times { _ = try await run.step(index, from: start) }
        }
        return (
            step: try await times { _ = try await run.step(guided, from: start) },
            stepUnguided: unguided,
            decode: try await times { _ = try await run.decode(start, after: 0) },
            wholeImage: try await times { _ = try await run.picture() }
        )
    }

    private func times(_ call: () async throws -> Void) async throws -> BenchmarkResults.Samples {
        for _ in 0..<warmup { try await call() }
        var samples: [Double] = []
        for _ in 0..<repeats {
            samples.append(try await milliseconds(call))
        }
        return BenchmarkResults.Samples(samples: samples)
    }
}

/// How long a call takes.
func milliseconds(_ call: () async throws -> Void) async rethrows -> Double {
    let clock = ContinuousClock()
    let start = clock.now
    try await call()
    return (clock.now - start) / .milliseconds(1)
}
