/// An opened step program: one sampler step, guidance included.
protocol StepProgram: Sendable {
    func callAsFunction(_ inputs: [String: Tensor]) async throws -> [String: Tensor]
}

/// An opened decode program.
protocol DecodeProgram: Sendable {
    func picture(of latents: Tensor) async throws -> Picture
}

/// The programs of a bundle, and how `step` is called.
struct Programs: Sendable {
    let step: any StepProgram
    /// For the steps without guidance, where `step` does not choose by itself.
    let stepUnguided: (any StepProgram)?
    let decode: any DecodeProgram
    let spec: Manifest.ProgramSpec

    func takes(_ input: String) -> Bool {
        spec.inputs.contains { $0.name == input }
    }
}

/// Programs of one class each, called as one: `class_index` picks. Each is opened when it is first called.
actor ClassPrograms: StepProgram {
    typealias Opener = @Sendable () async throws -> any StepProgram

    private let openers: [Opener]
    private var opened: [Int: any StepProgram] = [:]

    init(_ openers: [Opener]) {
        self.openers = openers
    }

    func callAsFunction(_ inputs: [String: Tensor]) async throws -> [String: Tensor] {
        let index = Int(inputs["class_index"]?.values[0] ?? 0)
        let program: any StepProgram
        if let known = opened[index] {
            program = known
        } else {
            program = try await openers[index]()
            opened[index] = program
        }
        return try await program(inputs.filter { $0.key != "class_index" })
    }
}
