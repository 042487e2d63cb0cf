import Foundation
import KindRuntime

#if canImport(ImageIO)
import ImageIO
import UniformTypeIdentifiers
#endif

/// `kind-draw`, for macOS: a picture of a bundle as a PNG file, or its times as `kind-bench import` reads them.
@main
struct KindDraw {
    static func main() async {
        do {
            let arguments = try Arguments(Array(ProcessInfo.processInfo.arguments.dropFirst()))
            if arguments.wantsHelp { return print(Arguments.usage) }
            try await run(arguments)
        } catch let error as KindError {
            fail("error: \(error.message)\nhint: \(error.hint)\n")
        } catch {
            fail("error: \(error.localizedDescription)\n")
        }
    }

    private static func fail(_ text: String) -> Never {
        FileHandle.standardError.write(Data(text.utf8))
        exit(1)
    }

    #if canImport(ImageIO)
    private static func run(_ arguments: Arguments) async throws {
        let bundle = try KindBundle(contentsOf: URL(fileURLWithPath: arguments.bundle))
        if let results = arguments.results {
            let file = try vacant(results, arguments)
            let measured = try await BenchmarkResults.measure(bundle)
            try measured.json.write(to: file, options: .atomic)
            print(file.path)
            return
        }
        let file = try vacant(arguments.output ?? "picture.png", arguments)
        let generator = try await KindGenerator(bundle: bundle)
        try write(try await start(generator, arguments).picture(), to: file)
        print(file.path)
    }

    private static func start(_ generator: KindGenerator, _ arguments: Arguments) throws -> Generation {
        let manifest = generator.manifest
        let (seed, guidance) = (arguments.seed, arguments.guidance)
        if manifest.packBase != nil || arguments.pack != nil, arguments.className == nil {
            let pack = try arguments.pack.map { try Pack(contentsOf: URL(fileURLWithPath: $0)) }
            return try generator.generate(pack: pack, seed: seed, guidance: guidance, previewEvery: 0)
        }
        guard let name = arguments.className ?? (manifest.classes.count == 1 ? manifest.classes[0].id : nil) else {
            let held = manifest.classes.map(\.name).joined(separator: ", ")
            throw KindError("no class was asked for", hint: "Add --class: the bundle holds \(held).")
        }
        return try generator.generate(class: name, seed: seed, guidance: guidance, previewEvery: 0)
    }

    /// The file at a path where nothing may be lost.
    private static func vacant(_ path: String, _ arguments: Arguments) throws -> URL {
        guard arguments.isForced || !FileManager.default.fileExists(atPath: path) else {
            throw KindError("\(path) exists already", hint: "Choose another name, or replace it with --force.")
        }
        return URL(fileURLWithPath: path)
    }

    private static func write(_ picture: Picture, to file: URL) throws {
        guard let image = picture.cgImage,
            let destination = CGImageDestinationCreateWithURL(
                file as CFURL, UTType.png.identifier as CFString, 1, nil)
        else {
            throw KindError("cannot write \(file.path)", hint: "Choose another place with -o.")
        }
        CGImageDestinationAddImage(destination, image, nil)
        guard CGImageDestinationFinalize(destination) else {
            throw KindError("cannot write \(file.path)", hint: "Choose another place with -o.")
        }
    }
    #else
    private static func run(_ arguments: Arguments) async throws {
        throw KindError("Core ML runs on macOS, not here", hint: "Use kind-run \(arguments.bundle) here.")
    }
    #endif
}
