public struct UTType: Sendable {
    public let identifier: String
    public static let png = UTType(identifier: "public.png")
}
