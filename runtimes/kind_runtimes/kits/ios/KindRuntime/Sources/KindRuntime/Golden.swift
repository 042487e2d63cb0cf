import Foundation

/// The eager model's trajectory that a bundle brings along: of its first class or, of a base, of the learngene alone.
struct Golden: Sendable {
    static let file = "golden.safetensors"

    private let noise: [Float]
    /// The scaled start noise and what each step makes of it.
    private let latents: [[Float]]
    /// Red, green and blue planes from 0 to 1; nil where the bundle makes latents.
    private let image: [Float]?

    /// What a unit made of it: latents after the worst step; milliseconds of each.
    struct Agreement: Sendable {
        var latentsDb = maxDb
        var pictureDb: Double?
        var stepsMs: [Double] = []
    }

    /// Reads the bytes of `golden.safetensors`.
    init(_ data: Data, for manifest: Manifest) throws {
        let damaged = KindError("\(Self.file) is not that of this bundle", hint: "Copy or export the bundle again.")
        let file = try Safetensors(data, subject: Self.file, damaged: damaged)
        let index = manifest.packBase == nil ? 0 : manifest.packs?.count ?? 0
        let size = manifest.latentsShape.reduce(1, *)
        noise = try file.read("\(index).noise", as: .single).values
        let all = try file.read("\(index).latents", as: .single).values
        guard noise.count == size, all.count == (manifest.steps + 1) * size else { throw damaged }
        latents = (0...manifest.steps).map { Array(all[$0 * size..<($0 + 1) * size]) }
        image = file.names.contains("\(index).image") ? try file.read("\(index).image", as: .single).values : nil
    }

    /// Runs the first `steps` steps of the trajectory, the worst counts, and decodes the eager model's last latents.
    func hold(_ generator: KindGenerator, steps: Int) async throws -> Agreement {
        let manifest = generator.manifest
        let run =
            try manifest.packBase == nil
            ? generator.generate(class: manifest.classes[0].id, seed: 0) : generator.generate(pack: nil, seed: 0)
        var state = run.start(from: noise)
        var agreement = Agreement()
        for index in 0..<steps {
            agreement.stepsMs.append(try await milliseconds { state = try await run.step(index, from: state) })
            let db = Self.psnrDb(of: state["latents"]?.values ?? [], against: latents[index + 1])
            agreement.latentsDb = min(agreement.latentsDb, db)
        }
        if let image {
            let last = Tensor(latents[manifest.steps], shape: manifest.latentsShape)
            let picture = try await generator.programs.decode.picture(of: last)
            let planes = (0..<3).flatMap { channel in
                stride(from: channel, to: picture.pixels.count, by: 3).map { Float(picture.pixels[$0]) / 255 }
            }
            agreement.pictureDb = Self.psnrDb(of: planes, against: image, peak: 1)
        }
        return agreement
    }

    /// A few steps, and as many as it takes to have run one with guidance and one without.
    static func fewSteps(of manifest: Manifest) -> Int {
        let steps = 0..<manifest.steps
        let firsts = [steps.first(where: manifest.isGuided), steps.first { !manifest.isGuided($0) }]
        return min(manifest.steps, max(3, (firsts.compactMap { $0 }.max() ?? 0) + 1))
    }

    static let maxDb = 200.0

    /// Peak signal-to-noise ratio. `peak` is the known range, 1 of a picture; without one it is that of `expected`, as
    /// latents have no other.
    static func psnrDb(of actual: [Float], against expected: [Float], peak: Double? = nil) -> Double {
        guard actual.count == expected.count, actual.allSatisfy(\.isFinite) else { return -maxDb }
        let range = peak ?? (Double(expected.max() ?? 0) - Double(expected.min() ?? 0))
        var squares = 0.0
        for (value, wanted) in zip(actual, expected) {
            let difference = Double(value) - Double(wanted)
            squares += difference * difference
        }
        let error = (squares / Double(max(expected.count, 1))).squareRoot()
        guard error > 0 else { return maxDb }
        return range > 0 ? min(maxDb, max(-maxDb, 20 * log10(range / error))) : -maxDb
    }
}
