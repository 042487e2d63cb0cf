import Foundation

/// A safetensors file: eight bytes of header length, the header in JSON, then the numbers.
struct Safetensors {
    enum Number: String {
        case half = "F16"
        case single = "F32"

        var width: Int { self == .half ? 2 : 4 }
    }

    private let header: [String: Any]
    private let body: Data
    private let subject: String
    private let damaged: KindError

    /// Reads the header; `subject` is what the file is called in errors, `damaged` is thrown where it is not whole.
    init(_ data: Data, subject: String, damaged: KindError) throws {
        guard data.count >= 8 else { throw damaged }
        let length = data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(data.count - 8) else { throw damaged }
        let start = data.startIndex + 8
        let end = start + Int(length)
        guard let header = try? JSONSerialization.jsonObject(with: data[start..<end]) as? [String: Any] else {
            throw damaged
        }
        self.header = header
        body = data[end...]
        self.subject = subject
        self.damaged = damaged
    }

    /// Names of the tensors.
    var names: [String] { header.keys.filter { $0 != "__metadata__" } }

    func metadata(_ name: String) -> String? {
        (header["__metadata__"] as? [String: Any])?[name] as? String
    }

    /// A tensor stored as `number`; every one must be finite.
    func read(_ name: String, as number: Number) throws -> Tensor {
        guard let entry = header[name] as? [String: Any], let held = entry["dtype"] as? String else { throw damaged }
        guard held == number.rawValue else {
            throw KindError(
                "\(subject) holds '\(name)' as \(held), expected \(number.rawValue)", hint: "Download it again.")
        }
        guard let shape = entry["shape"] as? [Int], let offsets = entry["data_offsets"] as? [Int],
            offsets.count == 2, 0 <= offsets[0], offsets[0] <= offsets[1], offsets[1] <= body.count,
            let size = Self.product(of: [number.width] + shape), offsets[1] - offsets[0] == size
        else { throw damaged }
        let bytes = [UInt8](body.dropFirst(offsets[0]).prefix(offsets[1] - offsets[0]))
        let values = stride(from: 0, to: bytes.count, by: number.width).map { start -> Float in
            let bits = (0..<number.width).reduce(UInt32(0)) { $0 | UInt32(bytes[start + $1]) << (8 * UInt32($1)) }
            return number == .half ? Float(half: UInt16(bits)) : Float(bitPattern: bits)
        }
        guard values.allSatisfy(\.isFinite) else { throw damaged }
        return Tensor(values, shape: shape)
    }

    /// nil where lengths are negative, or more than an integer holds: a file may say anything.
    private static func product(of lengths: [Int]) -> Int? {
        var product = 1
        for length in lengths {
            let (next, isTooLarge) = product.multipliedReportingOverflow(by: length)
            guard length >= 0, !isTooLarge else { return nil }
            product = next
        }
        return product
    }
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
