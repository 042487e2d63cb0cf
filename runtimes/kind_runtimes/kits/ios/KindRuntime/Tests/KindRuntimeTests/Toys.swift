import Foundation

@testable import KindRuntime

/// A generator of the toy programs that the vectors were drawn with.
struct ToyGenerator {
    let generator: KindGenerator
    let decode = ToyDecode()

    init(_ manifest: Manifest) throws {
        let specs = try (manifest.targets["coreml"] ?? manifest.target("onnx")).programs
        guard let spec = specs["step"] else { throw KindError("no step", hint: "Look at the vectors.") }
        let step: any StepProgram =
            spec.classFunctions == nil
            ? ToyStep() : ClassPrograms(manifest.classes.indices.map { index in { ToyStep(classIndex: Float(index)) } })
        generator = KindGenerator(
            manifest: manifest,
            programs: Programs(
                step: step, stepUnguided: specs["step_unguided"].map { _ in ToyUnguidedStep() }, decode: decode,
                spec: spec))
    }

    func generate(_ loop: Vectors.Loop, previewEvery interval: Int = 1) throws -> Generation {
        guard let name = loop.className else {
            return try generator.generate(
                pack: loop.pack.map { try Pack($0) }, seed: loop.seed, guidance: loop.guidance, previewEvery: interval)
        }
        return try generator.generate(
            class: name, seed: loop.seed, guidance: loop.guidance, previewEvery: interval)
    }
}

/// See `tests/mobile_vectors.py`: the same sums in the same order.
struct ToyStep: StepProgram {
    var classIndex: Float = 0

    func callAsFunction(_ inputs: [String: Tensor]) async throws -> [String: Tensor] {
        let number = { (name: String) in inputs[name]?.values[0] ?? 0 }
        let latents = inputs["latents"]!
        let step = number("step_index")
        let chosen = (inputs["class_index"]?.values[0] ?? classIndex) * 0.125
        let coefficients = inputs["modulation_coefficients"]?.values
        let pack = (coefficients?[Int(step)] ?? 0) * (inputs["modulation_basis"]?.values[1] ?? 0)
        let aim = latents.values.map { $0 * 0.5 + number("guidance") * 0.25 + chosen + number("tailor") + pack }
        let history = inputs["history"]?.values
        let next = aim.indices.map { aim[$0] + (history?[$0] ?? 0) * 0.5 - step * 0.0625 }
        var outputs = ["next_latents": Tensor(next, shape: latents.shape)]
        if history != nil {
            outputs["next_history"] = Tensor(zip(latents.values, aim).map { $0 - $1 }, shape: latents.shape)
        }
        return outputs
    }
}

struct ToyUnguidedStep: StepProgram {
    func callAsFunction(_ inputs: [String: Tensor]) async throws -> [String: Tensor] {
        let latents = inputs["latents"]!
        let chosen = (inputs["class_index"]?.values[0] ?? 0) * 0.125
        return ["next_latents": Tensor(latents.values.map { $0 * 0.75 + chosen }, shape: latents.shape)]
    }
}

/// Keeps the latents that it was given.
actor ToyDecode: DecodeProgram {
    private(set) var latents: [Tensor] = []

    func picture(of latents: Tensor) async throws -> Picture {
        self.latents.append(latents)
        let (height, width) = (latents.shape[2], latents.shape[3])
        let levels = latents.values.map { value -> UInt8 in
            let level = min(max(value * 0.5 + 0.5, 0), 1) * 255
            return level.isNaN ? 0 : UInt8(level.rounded(.toNearestOrEven))
        }
        let plane = height * width
        let pixels = (0..<plane).flatMap { i in [levels[i], levels[plane + i], levels[2 * plane + i]] }
        return Picture(width: width, height: height, pixels: pixels)
    }
}

/// A unit of the vectors: the toy programs with a fault.
struct ToyUnit: Provider {
    let manifest: Manifest
    let kind: UnitKind
    let fault: String
    var isHalf = false
    let target = "onnx"
    let opened = Counter()

    var name: String { "toy-\(kind.rawValue)" }

    func open() async throws -> Programs {
        await opened.count()
        if fault == "hang" { try await Task.sleep(for: .seconds(3)) }
        if fault == "load" { throw KindError("the driver is missing", hint: "") }
        let specs = try manifest.target(target).programs
        guard let spec = specs["step"] else { throw KindError("no step", hint: "Look at the vectors.") }
        let unguided = specs["step_unguided"].map { _ in FaultyStep(step: ToyUnguidedStep(), fault: fault) }
        return Programs(
            step: FaultyStep(step: ToyStep(), fault: fault), stepUnguided: unguided,
            decode: FaultyDecode(isMirrored: fault == "picture"), spec: spec)
    }
}

actor Counter {
    private(set) var value = 0

    func count() {
        value += 1
    }
}

private struct FaultyStep: StepProgram {
    let step: any StepProgram
    let fault: String

    func callAsFunction(_ inputs: [String: Tensor]) async throws -> [String: Tensor] {
        var outputs = try await step(inputs)
        let latents = outputs["next_latents"]!
        switch fault {
        case "nan": outputs["next_latents"] = latents.map { _ in .nan }
        case "zeros": outputs["next_latents"] = latents.map { _ in 0 }
        case "mirrored": outputs["next_latents"] = latents.mirrored
        case "rounded": outputs["next_latents"] = latents.map { $0 * (1 + 1 / 2048) }
        case "stall": try await Task.sleep(for: .seconds(3))
        case "step": throw KindError("the driver was lost", hint: "")
        default: break
        }
        return outputs
    }
}

private struct FaultyDecode: DecodeProgram {
    let isMirrored: Bool

    func picture(of latents: Tensor) async throws -> Picture {
        try await ToyDecode().picture(of: isMirrored ? latents.mirrored : latents)
    }
}

extension Tensor {
    fileprivate func map(_ transform: (Float) -> Float) -> Tensor {
        Tensor(values.map(transform), shape: shape)
    }

    /// Left and right change places.
    fileprivate var mirrored: Tensor {
        let width = shape[shape.count - 1]
        return Tensor(values.indices.map { values[$0 / width * width + width - 1 - $0 % width] }, shape: shape)
    }
}
