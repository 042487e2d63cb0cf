import Foundation

// Class names, as Python's `kind_core.classes` finds them: from what a user types to one class, without guessing.

extension Manifest {
    /// Place of a class by id, by one of its names or by all of them with commas between, to the letter; then by any of
    /// these or the last words of a name, whatever case, separators or plural. Of a giant and another panda, `panda` is
    /// the giant. Throws a `KindError` where none fits, or several equally well.
    func index(ofClass query: String) throws -> Int {
        if let index = findExact(query) ?? findPreferred(query) { return index }
        let found = fits(query).first { !$0.isEmpty } ?? []
        guard found.count < 2 else {
            throw KindError("class '\(query)' fits several: \(list(found))", hint: "Name one of them in full.")
        }
        guard let index = found.first else {
            throw KindError("unknown class '\(query)'", hint: "The bundle holds \(list(Array(classes.indices))).")
        }
        return index
    }

    /// The one class that is called so letter by letter: ids go before names, a name before all names together.
    private func findExact(_ query: String) -> Int? {
        // strings are equal however their accents are written
        let exact: [(ClassInfo) -> [String]] = [{ [$0.id] }, { $0.names }, { [$0.fullName] }]
        for called in exact {
            let found = classes.indices.filter { called(classes[$0]).contains(query) }
            if found.count == 1 { return found[0] }
        }
        return nil
    }

    private func findPreferred(_ query: String) -> Int? {
        guard let preferred = ClassName.forms(of: query).lazy.compactMap({ ClassName.preferred[$0] }).first else {
            return nil
        }
        let found = Set(fits(query).joined())
        let meant = found.filter {
            classes[$0].id == preferred.id || ClassName.isName(preferred.name, classes[$0])
        }
        return meant.count == 1 && found.count > 1 ? meant.first : nil
    }

    /// The classes that `query` fits under one rule after the other; each list may be empty.
    private func fits(_ query: String) -> some Sequence<[Int]> {
        let forms = ClassName.forms(of: query)
        return ClassName.rules.lazy.flatMap { rule in
            forms.lazy.map { form in classes.indices.filter { rule(form, classes[$0]) } }
        }
    }

    private func list(_ indices: [Int]) -> String {
        indices.map { classes[$0].name }.joined(separator: ", ")
    }
}

/// How names are compared.
private enum ClassName {
    /// A bare noun that names two animals: people who type it mean the first, by its name or its id.
    static let preferred = ["panda": (name: "giant panda", id: "n02510455")]

    /// Endings of a plural and of its singular, the likeliest first: shoes, buses, berries, wolves, knives.
    private static let plurals = [("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe")]

    /// Whether a form of what was asked for fits a class, the strictest first.
    static let rules: [@Sendable (String, ClassInfo) -> Bool] = [isName, isSingular, isTail]

    @Sendable static func isName(_ form: String, _ info: ClassInfo) -> Bool {
        ([info.id, info.fullName] + info.names).contains { normalize($0) == form }
    }

    @Sendable private static func isSingular(_ form: String, _ info: ClassInfo) -> Bool {
        info.names.contains { forms(of: $0).contains(form) }
    }

    @Sendable private static func isTail(_ form: String, _ info: ClassInfo) -> Bool {
        !form.isEmpty && info.names.contains { normalize($0).hasSuffix(" \(form)") }
    }

    /// `text` as it stands, then every singular that it may be the plural of.
    static func forms(of text: String) -> [String] {
        var words = normalize(text).split(separator: " ").map(String.init)
        let last = words.popLast() ?? ""
        return ([last] + singulars(of: last)).map { (words + [$0]).joined(separator: " ") }
    }

    private static func singulars(of word: String) -> [String] {
        let plurals = plurals.filter { word.hasSuffix($0.0) && word.unicodeScalars.count > $0.0.count + 1 }
        return word.hasSuffix("ss") ? [] : plurals.map { word.dropLast($0.0.count) + $0.1 }
    }

    /// Without case, separators and ways to write the same letter.
    private static func normalize(_ text: String) -> String {
        let parts = text.precomposedStringWithCompatibilityMapping.components(separatedBy: "ı")
        let folded = parts.map(fold).joined(separator: "ı").precomposedStringWithCompatibilityMapping
        let words = folded.split(whereSeparator: { $0.isWhitespace || "_-/,".contains($0) })
        return words.joined(separator: " ")
    }

    /// Upper case makes SS of ß, which ẞ is in lower case; an ı, which has the upper case of i, is a letter of its own.
    private static func fold(_ text: String) -> String {
        text.lowercased().uppercased().lowercased()
    }
}
