/// What computes. The ladder is gone down in this order.
public enum UnitKind: String, Codable, CaseIterable, Sendable {
    case npu, gpu, cpu
}

/// A compute unit as an engine offers it, and what came of holding it against the eager model's trajectory.
public struct ComputeUnit: Codable, Equatable, Sendable, CustomStringConvertible {
    /// As the engine calls it: of Core ML `cpu-and-neural-engine`, `cpu-and-gpu`, `cpu-only`.
    public let name: String
    public let kind: UnitKind
    /// The bundle's target that it runs.
    public let runtime: String
    /// Whether it may draw.
    public let isTaken: Bool
    /// Steps that were checked.
    public var steps = 0
    /// Agreement of its latents with the eager model's; 200 for equality, -200 where they are not finite.
    public var psnrDb: Double?
    /// One step, the middle of those that were checked.
    public var stepMs: Double?
    /// Opening the programs on it, which may compile them for the chip.
    public var firstLoadMs: Double?
    /// The most memory that this process held up to then.
    public var peakMemoryBytes: UInt64?
    /// Why it was refused or, of one that is taken, why it was not checked.
    public var reason: String?

    /// Of programs that were opened past the ladder.
    static let unchecked = ComputeUnit(
        name: "cpu-only", kind: .cpu, runtime: "coreml", isTaken: true, reason: "not checked")

    public var description: String {
        "\(name) (\(kind.rawValue.uppercased()))" + (reason.map { ": \($0)" } ?? "")
    }
}
