#if canImport(CoreML)
import CoreML
import CryptoKit

/// A Core ML package as Core ML loads it: compiled once, then kept in the caches folder under the hash of its files.
enum CompiledPackage {
    /// What `load` makes of a package. One that was kept and no longer loads is compiled again: the system clears caches,
    /// and may have cleared a part of it.
    static func load<Loaded>(
        _ program: String, in bundle: KindBundle, _ load: (URL) async throws -> Loaded
    ) async throws -> Loaded {
        let (compiled, isKept) = try await open(program, in: bundle)
        do {
            return try await load(compiled)
        } catch {
            guard isKept else { throw error }
            try? FileManager.default.removeItem(at: compiled)
            return try await load(open(program, in: bundle).url)
        }
    }

    private static func open(_ program: String, in bundle: KindBundle) async throws -> (url: URL, isKept: Bool) {
        let files = try bundle.files(of: program)
        let key = SHA256.hexDigest(of: Data(files.map(\.sha256).joined().utf8))
        let manager = FileManager.default
        let folder =
            try manager
            .url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            .appending(path: "KindRuntime", directoryHint: .isDirectory)
        let kept = folder.appending(path: "\(key).mlmodelc", directoryHint: .isDirectory)
        if manager.fileExists(atPath: kept.path) { return (kept, true) }

        for file in files { try bundle.check(file.path, file.sha256) }
        let compiled = try await MLModel.compileModel(at: bundle.url.appending(path: program))
        try manager.createDirectory(at: folder, withIntermediateDirectories: true)
        do {
            try manager.moveItem(at: compiled, to: kept)
        } catch CocoaError.fileWriteFileExists {
            try? manager.removeItem(at: compiled)  // another task was faster
        }
        return (kept, false)
    }
}

extension KindBundle {
    /// What names the bundle exactly: its manifest holds the hashes of all programs.
    func manifestSha256() throws -> String {
        SHA256.hexDigest(of: try Data(contentsOf: url.appending(path: "manifest.json")))
    }

    /// The golden data, after checking that it is what was verified; nil where the bundle brings none, as bundles of old
    /// and those cut down.
    func checkedGolden() throws -> Golden? {
        let place = url.appending(path: Golden.file)
        guard let file = manifest.files[Golden.file], FileManager.default.fileExists(atPath: place.path) else {
            return nil
        }
        try check(Golden.file, file.sha256)
        return try Golden(Data(contentsOf: place), for: manifest)
    }

    /// Throws a `KindError` unless the file at `path` is the one that was verified.
    func check(_ path: String, _ sha256: String) throws {
        guard let data = try? Data(contentsOf: url.appending(path: path), options: .mappedIfSafe) else {
            throw KindError(
                "\(url.lastPathComponent) has no file \(path)",
                hint: "Copy the whole folder as it is, in Xcode without Build Folder Contents.")
        }
        let actual = SHA256.hexDigest(of: data)
        guard actual == sha256 || !data.isPointer else {
            throw KindError("\(path) is a Git LFS pointer, not the file itself", hint: "git lfs pull brings it.")
        }
        guard actual == sha256 else {
            throw KindError(
                "\(path) has sha256 \(actual.prefix(12))..., the manifest expects \(sha256.prefix(12))...",
                hint: "The file was changed or damaged: copy or export the bundle again.")
        }
    }
}

extension SHA256 {
    /// Lower-case hexadecimal.
    static func hexDigest(of data: Data) -> String {
        hash(data: data).map { String(format: "%02x", $0) }.joined()
    }
}
#endif
