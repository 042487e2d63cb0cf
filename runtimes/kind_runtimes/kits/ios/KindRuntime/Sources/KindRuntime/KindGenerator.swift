import Foundation

/// Draws pictures with the programs of a bundle. It may be used from several tasks at once.
///
///     let generator = try await KindGenerator(bundle: KindBundle(contentsOf: url))
///     for try await preview in try generator.generate(class: "panda", seed: 7) {
///         show(preview.picture)
///     }
public struct KindGenerator: Sendable {
    private static let maxGuidance: Float = 100

    public let manifest: Manifest
    /// What computes, and how it was found right.
    public let unit: ComputeUnit
    /// Those that come before it and draw something else or nothing, each with its reason.
    public let refusedUnits: [ComputeUnit]
    let programs: Programs

    init(
        manifest: Manifest, programs: Programs, unit: ComputeUnit = .unchecked, refusedUnits: [ComputeUnit] = []
    ) {
        self.manifest = manifest
        self.programs = programs
        self.unit = unit
        self.refusedUnits = refusedUnits
    }

    /// Draws one picture of a class, by id or name. The same seed gives the same picture in every runtime.
    ///
    /// - Parameters:
    ///   - guidance: nil for the bundle's own, the only choice where it is built in; up to 100.
    ///   - interval: Steps between previews. Each costs a decode, which is next to nothing where latents are pixels;
    ///     0 for none but the last.
    public func generate(
        class name: String, seed: UInt64, guidance: Float? = nil, previewEvery interval: Int = 1
    ) throws -> Generation {
        guard manifest.packBase == nil else {
            throw KindError("the bundle is a base: its classes are packs", hint: "Give a pack in place of '\(name)'.")
        }
        let index = try manifest.index(ofClass: name)
        let choosesClass = programs.takes("class_index") || programs.spec.classFunctions != nil
        let choice: [String: Tensor] = choosesClass ? ["class_index": .scalar(Float(index))] : [:]
        return try generation(choice, seed, guidance, interval)
    }

    /// Draws one picture of a base with `pack` attached; without one, the learngene alone.
    public func generate(
        pack: Pack?, seed: UInt64, guidance: Float? = nil, previewEvery interval: Int = 1
    ) throws -> Generation {
        if pack == nil, manifest.packBase == nil {
            let held = manifest.classes.map(\.name).joined(separator: ", ")
            throw KindError("the bundle takes no packs: \(held) is built in", hint: "Name a class in place of a pack.")
        }
        try pack?.check(against: manifest)
        return try generation(try Pack.inputs(pack, for: programs.spec.inputs), seed, guidance, interval)
    }

    private func generation(
        _ choice: [String: Tensor], _ seed: UInt64, _ guidance: Float?, _ interval: Int
    ) throws -> Generation {
        if let distillation = manifest.distillation, guidance != nil {
            throw KindError(
                "guidance \(distillation.guidanceScale) is built in; another does not apply", hint: "Leave it out.")
        }
        let scale = guidance ?? manifest.guidanceScale
        guard abs(scale) <= Self.maxGuidance else {  // also of NaN
            let most = String(format: "%.0f", Self.maxGuidance)
            throw KindError("guidance is \(scale), expected a finite number up to \(most)", hint: "Leave it out.")
        }
        return Generation(
            manifest: manifest, programs: programs, choice: choice, seed: seed, guidance: scale, interval: interval)
    }
}

/// What a picture looks like after `step` of `steps` steps; the last one is the picture.
public struct Preview: Sendable {
    public let step: Int
    public let steps: Int
    public let picture: Picture
}

/// A picture being drawn: each preview is computed when it is asked for. Cancelling the task stops before the next step.
public struct Generation: AsyncSequence, Sendable {
    public typealias Element = Preview

    let manifest: Manifest
    let programs: Programs
    let choice: [String: Tensor]
    let seed: UInt64
    let guidance: Float
    let interval: Int

    public func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(self)
    }

    /// The finished picture, with no previews on the way.
    public func picture() async throws -> Picture {
        var state = start()
        for index in 0..<manifest.steps {
            state = try await step(index, from: state)
        }
        return try await decode(state, after: manifest.steps).picture
    }

    /// What the first step begins with.
    func start() -> [String: Tensor] {
        start(from: StartNoise.normals(seed: seed, count: manifest.latentsShape.reduce(1, *)))
    }

    /// The same from noise of unit variance.
    func start(from noise: [Float]) -> [String: Tensor] {
        let shape = manifest.latentsShape
        let latents = Tensor(noise.map { $0 * manifest.initialNoiseScale }, shape: shape)
        return programs.takes("history") ? ["latents": latents, "history": .zeros(shape)] : ["latents": latents]
    }

    func step(_ index: Int, from state: [String: Tensor]) async throws -> [String: Tensor] {
        try Task.checkCancellation()
        var inputs = state.merging(choice) { $1 }
        inputs["step_index"] = .scalar(Float(index))
        let outputs: [String: Tensor]
        if let unguided = programs.stepUnguided, !manifest.isGuided(index) {
            outputs = try await unguided(inputs)
        } else {
            if manifest.distillation == nil { inputs["guidance"] = .scalar(guidance) }
            outputs = try await programs.step(inputs)
        }
        // outputs are called next_latents and next_history: no format lets an output share its input's name
        return Dictionary(uniqueKeysWithValues: outputs.map { (String($0.key.trimmingPrefix("next_")), $0.value) })
    }

    func decode(_ state: [String: Tensor], after steps: Int) async throws -> Preview {
        guard let latents = state["latents"], steps < manifest.steps || latents.values.allSatisfy(\.isFinite) else {
            throw KindError(
                "seed \(seed) gives numbers that are not finite at guidance \(guidance)", hint: "Lower the guidance.")
        }
        return Preview(step: steps, steps: manifest.steps, picture: try await programs.decode.picture(of: latents))
    }

    public struct AsyncIterator: AsyncIteratorProtocol {
        private let generation: Generation
        private var state: [String: Tensor]
        private var done = 0

        init(_ generation: Generation) {
            self.generation = generation
            state = generation.start()
        }

        public mutating func next() async throws -> Preview? {
            guard done < generation.manifest.steps else { return nil }
            repeat {
                state = try await generation.step(done, from: state)
                done += 1
            } while !isPreviewDue
            return try await generation.decode(state, after: done)
        }

        private var isPreviewDue: Bool {
            done == generation.manifest.steps
                || (generation.interval > 0 && done.isMultiple(of: generation.interval))
        }
    }
}
