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
        let (header, body) = try Self.split(data)
        guard let text = (header["__metadata__"] as? [String: Any])?["pack"] as? String,
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
        var tensors: [String: Tensor] = [:]
        for (name, entry) in header where name != "__metadata__" {
            tensors[name] = try Self.tensor(name, entry, in: body)
        }
        self.tensors = tensors
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

    private static let dtype = "F16"
    private static let damaged = KindError("the file is not a whole pack", hint: "Download it again.")

    /// safetensors: eight bytes of header length, the header in JSON, then the numbers.
    private static func split(_ data: Data) throws -> (header: [String: Any], body: Data) {
        guard data.count >= 8 else { throw damaged }
        let length = data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(data.count - 8) else { throw damaged }
        let start = data.startIndex + 8
        let end = start + Int(length)
        guard let header = try? JSONSerialization.jsonObject(with: data[start..<end]) as? [String: Any] else {
            throw damaged
        }
        return (header, data[end...])
    }

    private static func tensor(_ name: String, _ entry: Any, in body: Data) throws -> Tensor {
        guard let entry = entry as? [String: Any], let dtype = entry["dtype"] as? String else { throw damaged }
        guard dtype == Self.dtype else {
            throw KindError(
                "the pack holds '\(name)' as \(dtype), expected \(Self.dtype)", hint: "Download it again.")
        }
        guard let shape = entry["shape"] as? [Int], let offsets = entry["data_offsets"] as? [Int],
            offsets.count == 2, 0 <= offsets[0], offsets[0] <= offsets[1], offsets[1] <= body.count,
            offsets[1] - offsets[0] == 2 * shape.reduce(1, *)
        else { throw damaged }
        let bytes = [UInt8](body.dropFirst(offsets[0]).prefix(offsets[1] - offsets[0]))
        let values = stride(from: 0, to: bytes.count, by: 2).map {
            Float(half: UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8)
        }
        guard values.allSatisfy(\.isFinite) else { throw damaged }
        return Tensor(values, shape: shape)
    }
}

extension Data {
    /// Whether Git LFS left these few lines of text in a file's place.
    var isPointer: Bool { starts(with: Data("version https://git-lfs".utf8)) }
}

extension Float {
    /// The number that 16 bits hold, exactly (`Float16` does not exist on Intel Macs).
    init(half bits: UInt16) {
        let sign = UInt32(bits & 0x8000) << 16
        let exponent = UInt32(bits >> 10 & 0x1F)
        let fraction = UInt32(bits & 0x3FF)
        switch exponent {
        case 0: self = (sign == 0 ? 0x1p-24 : -0x1p-24) * Float(fraction)
        case 31: self.init(bitPattern: sign | 0x7F80_0000 | fraction << 13)
        default: self.init(bitPattern: sign | (exponent + 112) << 23 | fraction << 13)
        }
    }
}
