import Foundation

/// What went wrong, with the offending and the expected value, and the next step.
public struct KindError: LocalizedError, Equatable, Sendable {
    public let message: String
    public let hint: String

    public init(_ message: String, hint: String) {
        self.message = message
        self.hint = hint
    }

    public var errorDescription: String? { message }
    public var recoverySuggestion: String? { hint }
}
