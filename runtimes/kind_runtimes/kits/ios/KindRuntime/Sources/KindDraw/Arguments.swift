import KindRuntime

/// What `kind-draw` was asked for.
struct Arguments: Equatable, Sendable {
    static let usage = """
        kind-draw BUNDLE [--class NAME | --pack FILE] [--seed N] [--guidance SCALE] [-o PICTURE.png] [--force], \
        or kind-draw BUNDLE --measure RESULTS.json [--force]
        """

    var bundle = ""
    var className: String?
    var pack: String?
    var seed: UInt64 = 0
    var guidance: Float?
    var output: String?
    /// Where measured times go, in place of a picture.
    var results: String?
    var isForced = false
    var wantsHelp = false

    init(_ words: [String]) throws {
        var (rest, options): (ArraySlice<String>, [String]) = (words[...], [])
        while let word = rest.popFirst() {
            if word.hasPrefix("-") { options.append(word) }
            switch word {
            case "-h", "--help": wantsHelp = true
            case "--class": className = try Self.value(of: word, from: &rest)
            case "--pack": pack = try Self.value(of: word, from: &rest)
            case "--seed": seed = try Self.number(UInt64.self, of: word, from: &rest)
            case "--guidance": guidance = try Self.number(Float.self, of: word, from: &rest)
            case "-o", "--output": output = try Self.value(of: word, from: &rest)
            case "--measure": results = try Self.value(of: word, from: &rest)
            case "--force": isForced = true
            default:
                guard !word.hasPrefix("-"), bundle.isEmpty else {
                    throw KindError("'\(word)' is not expected here", hint: Self.usage)
                }
                bundle = word
            }
        }
        guard !bundle.isEmpty || wantsHelp else { throw KindError("no bundle was given", hint: Self.usage) }
        guard className == nil || pack == nil else {
            throw KindError("both --class and --pack were given", hint: "A base draws packs, other bundles classes.")
        }
        if results != nil, let other = options.first(where: { !["--measure", "--force"].contains($0) }) {
            throw KindError("\(other) does not go with --measure, which draws no picture", hint: Self.usage)
        }
    }

    private static func value(of option: String, from rest: inout ArraySlice<String>) throws -> String {
        guard let value = rest.popFirst() else { throw KindError("\(option) has no value", hint: usage) }
        return value
    }

    private static func number<Number: LosslessStringConvertible>(
        _ kind: Number.Type, of option: String, from rest: inout ArraySlice<String>
    ) throws -> Number {
        let text = try value(of: option, from: &rest)
        guard let number = Number(text) else {
            throw KindError("\(option) is '\(text)', expected a number", hint: usage)
        }
        return number
    }
}
