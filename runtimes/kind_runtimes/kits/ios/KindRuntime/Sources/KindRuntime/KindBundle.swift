import Foundation

/// A bundle that `kind-export` wrote. An app needs of it `manifest.json`, the folder of its target and, of a base, packs.
public struct KindBundle: Sendable {
    public let url: URL
    public let manifest: Manifest

    /// Reads the manifest; the programs are checked and opened by `KindGenerator`.
    public init(contentsOf url: URL) throws {
        let file = url.appendingPathComponent("manifest.json")
        guard let data = try? Data(contentsOf: file) else {
            throw KindError(
                "there is no bundle at \(url.path)", hint: "Add the exported folder to the app's resources.")
        }
        self.url = url
        manifest = try Manifest.parse(data)
    }

    /// The files of one program, by their path in the bundle: a Core ML package is a folder of several.
    func files(of program: String) throws -> [(path: String, sha256: String)] {
        let parts = manifest.files.filter { $0.key == program || $0.key.hasPrefix("\(program)/") }
        guard !parts.isEmpty else {
            throw KindError("manifest.json lists no file of the program \(program)", hint: "Export the bundle again.")
        }
        guard let outside = parts.keys.first(where: { $0.hasPrefix("/") || $0.split(separator: "/").contains("..") })
        else {
            return parts.sorted { $0.key < $1.key }.map { ($0.key, $0.value.sha256) }
        }
        throw KindError("manifest.json lists '\(outside)', which is outside the bundle", hint: "Export it again.")
    }
}
