#if canImport(CoreML)
import CoreML

/// A compute unit of Core ML, with the CPU for what it leaves.
struct CoreMLProvider: Provider {
    let bundle: KindBundle
    let kind: UnitKind
    let target = "coreml"

    static func all(of bundle: KindBundle) -> [any Provider] {
        UnitKind.allCases.map { CoreMLProvider(bundle: bundle, kind: $0) }
    }

    var computeUnits: MLComputeUnits {
        switch kind {
        case .npu: .cpuAndNeuralEngine
        case .gpu: .cpuAndGPU
        case .cpu: .cpuOnly
        }
    }

    var name: String { computeUnits.name }
    var isHalf: Bool { kind == .npu }

    func open() async throws -> Programs {
        if kind != .cpu, let step = try bundle.manifest.target(target).programs["step"] {
            try await requireWork(of: step)
        }
        return try await Self.open(bundle, on: computeUnits)
    }

    /// Throws a `KindError` where Core ML plans to leave the whole step to the CPU.
    private func requireWork(of step: Manifest.ProgramSpec) async throws {
        guard #available(iOS 17.4, macOS 14.4, *) else { return }  // which tell no plan
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits
        let plan = try await CompiledPackage.load(step.file, in: bundle) {
            try await MLComputePlan.load(contentsOf: $0, configuration: configuration)
        }
        guard case .program(let program) = plan.modelStructure else { return }
        let operations = program.functions.values.flatMap(\.block.operations)
        let isUsed = operations.contains { operation in
            switch plan.deviceUsage(for: operation)?.preferred {
            case .neuralEngine: kind == .npu
            case .gpu: kind == .gpu
            default: false
            }
        }
        guard isUsed else {
            throw KindError("Core ML plans to run the step on the CPU alone", hint: "Use the CPU.")
        }
    }

    static func open(_ bundle: KindBundle, on computeUnits: MLComputeUnits) async throws -> Programs {
        let programs = try bundle.manifest.target("coreml").programs
        guard let step = programs["step"], let decode = programs["decode"] else {
            throw KindError("the bundle has no decode program: it makes latents", hint: "Export it with a decoder.")
        }
        var unguided: CoreMLProgram?
        if let spec = programs["step_unguided"] {
            unguided = try await CoreMLProgram(spec, in: bundle, computeUnits: computeUnits)
        }
        return Programs(
            step: try await openStep(step, in: bundle, on: computeUnits),
            stepUnguided: unguided,
            decode: try await CoreMLProgram(decode, in: bundle, computeUnits: computeUnits),
            spec: step)
    }

    private static func openStep(
        _ spec: Manifest.ProgramSpec, in bundle: KindBundle, on computeUnits: MLComputeUnits
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

extension ComputeUnit {
    /// Of programs that were opened past the ladder: the highest of the units that Core ML may use.
    static func unchecked(_ units: MLComputeUnits) -> ComputeUnit {
        let kinds: [MLComputeUnits: UnitKind] = [.cpuOnly: .cpu, .cpuAndGPU: .gpu]
        return ComputeUnit(
            name: units.name, kind: kinds[units] ?? .npu, runtime: "coreml", isTaken: true, reason: "not checked")
    }
}

extension MLComputeUnits {
    var name: String {
        switch self {
        case .all: "all"
        case .cpuOnly: "cpu-only"
        case .cpuAndGPU: "cpu-and-gpu"
        case .cpuAndNeuralEngine: "cpu-and-neural-engine"
        @unknown default: "\(rawValue)"
        }
    }
}
#endif
