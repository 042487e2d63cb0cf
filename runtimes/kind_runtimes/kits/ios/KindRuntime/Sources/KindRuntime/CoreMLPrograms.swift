#if canImport(CoreML)
import CoreML

extension KindGenerator {
    /// Opens the Core ML programs of a bundle on the first compute unit that draws what the eager model does, from the
    /// Neural Engine down, after checking that their files are the ones that were verified.
    ///
    /// The first time after installing, Core ML compiles them for the chip, which takes seconds; keep the generator.
    ///
    /// - Parameters:
    ///   - only: The only kind of unit to take; it is checked like any other.
    ///   - store: Keeps what was found between starts; without one, units are checked at each.
    public init(bundle: KindBundle, only: UnitKind? = nil, store: UnitStore? = .standard) async throws {
        let ladder = Ladder(
            manifest: bundle.manifest, golden: try bundle.checkedGolden(),
            notes: store?.notes(of: try bundle.manifestSha256()) ?? UnitNotes(),
            peakMemoryBytes: { BenchmarkResults.Machine.peakFootprintBytes })
        self = try await ladder.open(CoreMLProvider.all(of: bundle), forced: only)
    }

    /// Opens them on the units that are named, past the ladder: nothing is checked.
    public init(bundle: KindBundle, computeUnits: MLComputeUnits) async throws {
        let programs = try await CoreMLProvider.open(bundle, on: computeUnits)
        self.init(manifest: bundle.manifest, programs: programs, unit: .unchecked(computeUnits))
    }
}

/// A function of a Core ML package. `MLModel` predicts from several threads at once.
struct CoreMLProgram: StepProgram, DecodeProgram, @unchecked Sendable {
    private let model: MLModel
    private let spec: Manifest.ProgramSpec

    init(
        _ spec: Manifest.ProgramSpec, function: String? = nil, in bundle: KindBundle, computeUnits: MLComputeUnits
    ) async throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits
        if let function = function ?? spec.function {
            guard #available(iOS 18, macOS 15, *) else {
                throw KindError("the bundle has functions, which need iOS 18", hint: "Export it with --min-ios 17.")
            }
            configuration.functionName = function
        }
        model = try await CompiledPackage.load(spec.file, in: bundle) {
            try await MLModel.load(contentsOf: $0, configuration: configuration)
        }
        self.spec = spec
    }

    func callAsFunction(_ inputs: [String: Tensor]) async throws -> [String: Tensor] {
        let outputs = try await predict(inputs)
        var tensors: [String: Tensor] = [:]
        for output in spec.outputs {
            guard let array = outputs.featureValue(for: output.name)?.shapedArrayValue(of: Float.self) else {
                throw unexpected(output)
            }
            tensors[output.name] = Tensor(array.scalars, shape: array.shape)
        }
        return tensors
    }

    func picture(of latents: Tensor) async throws -> Picture {
        let outputs = try await predict(["latents": latents])
        guard let buffer = outputs.featureValue(for: spec.outputs[0].name)?.imageBufferValue,
            let picture = Picture(buffer)
        else { throw unexpected(spec.outputs[0]) }
        return picture
    }

    private func predict(_ inputs: [String: Tensor]) async throws -> any MLFeatureProvider {
        var features: [String: MLFeatureValue] = [:]
        for input in spec.inputs {
            guard let tensor = inputs[input.name], tensor.shape == input.shape else { throw unexpected(input) }
            features[input.name] =
                input.dtype == "int32"
                ? MLFeatureValue(
                    shapedArray: MLShapedArray(scalars: tensor.values.map { Int32($0) }, shape: input.shape))
                : MLFeatureValue(shapedArray: MLShapedArray(scalars: tensor.values, shape: input.shape))
        }
        return try await model.prediction(from: MLDictionaryFeatureProvider(dictionary: features))
    }

    private func unexpected(_ tensor: Manifest.TensorSpec) -> KindError {
        KindError(
            "\(spec.file) disagrees with the manifest on '\(tensor.name)', \(tensor.dtype) \(tensor.shape)",
            hint: "Export the bundle again.")
    }
}
#endif
