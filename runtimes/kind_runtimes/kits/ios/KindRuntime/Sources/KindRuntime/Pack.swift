import Foundation

/// One class as a download: a safetensors file that attaches to the base it was made for.
public struct Pack: Sendable {
    static let formatVersion = 1

    public let info: ClassInfo
    let base: String
    let tensors: [String: Tensor]

    /// Reads a pack; throws a `KindError` for what is missing, damaged, newer or no pack.
    public init(contentsOf url: URL) throws {
        guard let data = try? Data(contentsOf: url) else {
            throw KindError("there is no pack at \(url.path)", hint: "Download it.")
        }
        try self.init(data)
    }

    /// Reads the bytes of a pack.
    public init(_ data: Data) throws {
        guard !data.isPointer else {
            throw KindError("the file is a Git LFS pointer, not the pack", hint: "Download the file itself.")
        }
        let file = try Safetensors(data, subject: "the pack", damaged: Self.damaged)
        guard let text = file.metadata("pack"),
            let metadata = try? JSONDecoder().decode(Metadata.self, from: Data(text.utf8))
        else {
            throw KindError("the file is no pack: its metadata says nothing of one", hint: "Make one with kind-export.")
        }
        guard metadata.formatVersion <= Self.formatVersion else {
            throw KindError(
                "the pack has format_version \(metadata.formatVersion), this app reads up to \(Self.formatVersion)",
                hint: "Update KindRuntime.")
        }
        info = metadata.info
        base = metadata.base
        tensors = try Dictionary(uniqueKeysWithValues: file.names.map { ($0, try file.read($0, as: .half)) })
    }

    /// The inputs of `specs` that a pack fills: `pack`'s tensors, or zeros for the learngene alone.
    static func inputs(_ pack: Pack?, for specs: [Manifest.TensorSpec]) throws -> [String: Tensor] {
        var inputs: [String: Tensor] = [:]
        for spec in specs where ["tailor", "modulation_basis", "modulation_coefficients"].contains(spec.name) {
            let tensor = pack == nil ? .zeros(spec.shape) : pack?.tensors[spec.name]
            guard let tensor, tensor.shape == spec.shape else {
                let held = tensor.map { "shape \($0.shape)" } ?? "nothing"
                throw KindError(
                    "the pack holds \(held) as '\(spec.name)', the base takes \(spec.shape)", hint: "Download it again."
                )
            }
            inputs[spec.name] = tensor
        }
        return inputs
    }

    /// Throws a `KindError` unless the pack was made for the base of this bundle.
    func check(against manifest: Manifest) throws {
        guard let wanted = manifest.packBase else {
            let held = manifest.classes.map(\.name).joined(separator: ", ")
            throw KindError("the bundle takes no packs: \(held) is built in", hint: "Export a base with --packs.")
        }
        guard base == wanted else {
            throw KindError(
                "the pack is for base \(base.prefix(12))..., this bundle is base \(wanted.prefix(12))...",
                hint: "Take the pack that was exported for this base, or update the app.")
        }
    }

    private struct Metadata: Decodable {
        let formatVersion: Int
        let base: String
        let info: ClassInfo

        enum CodingKeys: String, CodingKey {
            case base
            case formatVersion = "format_version"
            case info = "class"
        }
    }

    private static let damaged = KindError("the file is not a whole pack", hint: "Download it again.")
}

extension Data {
    /// Whether Git LFS left these few lines of text in a file's place.
    var isPointer: Bool { starts(with: Data("version https://git-lfs".utf8)) }
}
