#if canImport(CoreML)
import CoreML

extension KindGenerator {
    /// Opens the Core ML programs of a bundle, after checking that their files are the ones that were verified.
    ///
    /// The first time after installing, Core ML compiles them for the chip, which takes seconds; keep the generator.
    public init(bundle: KindBundle, computeUnits: MLComputeUnits = .all) async throws {
        let programs = try bundle.manifest.target("coreml").programs
        guard let step = programs["step"], let decode = programs["decode"] else {
            throw KindError("the bundle has no decode program: it makes latents", hint: "Export it with a decoder.")
        }
        var unguided: CoreMLProgram?
        if let spec = programs["step_unguided"] {
            unguided = try await CoreMLProgram(spec, in: bundle, computeUnits: computeUnits)
        }
        self.init(
            manifest: bundle.manifest,
            programs: Programs(
                step: try await Self.openStep(step, in: bundle, computeUnits: computeUnits),
                stepUnguided: unguided,
                decode: try await CoreMLProgram(decode, in: bundle, computeUnits: computeUnits),
                spec: step))
    }

    private static func openStep(
        _ spec: Manifest.ProgramSpec, in bundle: KindBundle, computeUnits: MLComputeUnits
    ) async throws -> any StepProgram {
        guard let functions = spec.classFunctions else {
            return try await CoreMLProgram(spec, in: bundle, computeUnits: computeUnits)
        }
        return ClassPrograms(
            bundle.manifest.classes.map { info in
                {
                    try await CoreMLProgram(
                        spec, function: functions[info.id], in: bundle, computeUnits: computeUnits)
                }
            })
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
        let compiled = try await CompiledPackage.open(spec.file, in: bundle)
        model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
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
