import Foundation

/// A class that a bundle draws: a stable id and its names, the best one first.
public struct ClassInfo: Codable, Hashable, Sendable, Identifiable {
    public let id: String
    public let names: [String]

    public var name: String { names.first ?? id }

    /// All names, as a folder of the class is called.
    var fullName: String { names.joined(separator: ", ") }
}

/// `manifest.json` of a bundle: what it draws and how its programs are called.
public struct Manifest: Decodable, Sendable {
    public static let formatVersion = 2
    public static let noiseGenerator = "philox4x32-10+box-muller/1"
    private static let maxSteps = 10_000
    private static let maxNumbers = Double(1 << 28)

    public let name: String
    /// In the order of `class_index`; of a base, those of its packs.
    public let classes: [ClassInfo]
    public let steps: Int
    public let guidanceScale: Float
    /// The steps with guidance, where it is not all of them.
    public let guidedSteps: Set<Int>?
    /// Of a model that draws in few steps, whose guidance is built in.
    public let distillation: Distillation?
    public let initialNoiseScale: Float
    public let latentsShape: [Int]
    /// Of a base, which holds no class itself: the hash that its packs carry.
    public let packBase: String?
    let packs: [PackSpec]?
    let noiseGenerator: String
    let targets: [String: TargetSpec]
    let files: [String: FileSpec]

    enum CodingKeys: String, CodingKey {
        case name, classes, steps, targets, files, distillation, packs
        case guidanceScale = "guidance_scale"
        case guidedSteps = "guided_steps"
        case initialNoiseScale = "initial_noise_scale"
        case latentsShape = "latents_shape"
        case packBase = "pack_base"
        case noiseGenerator = "noise_generator"
    }

    /// What a model that draws in few steps was taught; no program of it takes a guidance scale.
    public struct Distillation: Decodable, Sendable {
        /// The numbers of steps that were trained, most first.
        public let steps: [Int]
        public let guidanceScale: Float

        enum CodingKeys: String, CodingKey {
            case steps
            case guidanceScale = "guidance_scale"
        }
    }

    struct PackSpec: Decodable, Sendable {
        let id: String
    }

    struct Parity: Decodable, Sendable {
        /// What the export was held to, over whole trajectories.
        let thresholdDb: Double

        enum CodingKeys: String, CodingKey {
            case thresholdDb = "threshold_db"
        }
    }

    struct TargetSpec: Decodable, Sendable {
        let precision: String
        let parity: Parity
        let programs: [String: ProgramSpec]
    }

    struct ProgramSpec: Decodable, Sendable {
        let file: String
        /// Which function of the file, where it holds several.
        let function: String?
        /// The function of each class by id, where each has its own in place of an input `class_index`.
        let classFunctions: [String: String]?
        let inputs: [TensorSpec]
        let outputs: [TensorSpec]

        enum CodingKeys: String, CodingKey {
            case file, function, inputs, outputs
            case classFunctions = "class_functions"
        }
    }

    struct TensorSpec: Decodable, Sendable {
        let name: String
        let shape: [Int]
        let dtype: String
    }

    struct FileSpec: Decodable, Sendable {
        let sha256: String
    }

    private struct Version: Decodable {
        let formatVersion: Int

        enum CodingKeys: String, CodingKey {
            case formatVersion = "format_version"
        }
    }

    /// Reads the bytes of `manifest.json`; throws a `KindError` where they are damaged or newer than this package.
    public static func parse(_ data: Data) throws -> Manifest {
        let decoder = JSONDecoder()
        let manifest: Manifest
        do {
            let version = try decoder.decode(Version.self, from: data).formatVersion
            guard version <= formatVersion else {
                throw KindError(
                    "manifest.json has format_version \(version), this app reads up to \(formatVersion)",
                    hint: "Update KindRuntime.")
            }
            manifest = try decoder.decode(Manifest.self, from: data)
        } catch let error as DecodingError {
            throw KindError("manifest.json does not fit: \(describe(error))", hint: "Export the bundle again.")
        }
        try manifest.check()
        return manifest
    }

    /// Whether guidance is on in a step; without it the class is predicted alone.
    func isGuided(_ step: Int) -> Bool {
        guidedSteps?.contains(step) ?? true
    }

    func target(_ name: String) throws -> TargetSpec {
        guard let target = targets[name] else {
            let held = targets.keys.sorted().joined(separator: ", ")
            throw KindError(
                "the bundle holds no \(name) programs, only \(held)", hint: "Export it with --target \(name).")
        }
        return target
    }

    private func check() throws {
        guard noiseGenerator == Self.noiseGenerator else {
            throw KindError("unknown noise generator '\(noiseGenerator)'", hint: "Update KindRuntime.")
        }
        let numbers = latentsShape.reduce(1.0) { $0 * Double($1) }  // which overflows nothing
        guard (1...Self.maxSteps).contains(steps), !classes.isEmpty, latentsShape.count == 4,
            latentsShape.allSatisfy({ $0 >= 1 }), numbers <= Self.maxNumbers
        else {
            throw KindError(
                "manifest.json has \(steps) steps, \(classes.count) classes and latents of shape \(latentsShape)",
                hint: "Export the bundle again.")
        }
    }

    private static func describe(_ error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, let context): "\(path(context, key)) is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context): "\(path(context)) has another type"
        case .dataCorrupted: "it is no JSON"
        @unknown default: "\(error)"
        }
    }

    private static func path(_ context: DecodingError.Context, _ key: (any CodingKey)? = nil) -> String {
        (context.codingPath + [key].compactMap { $0 }).map(\.stringValue).joined(separator: ".")
    }
}
