// swift-tools-version: 5.9
// The kit, `kind-draw` and the sample app beside stand-ins for Apple's frameworks, in Swift 6. Tests lay their sources here.
import PackageDescription

let six: [SwiftSetting] = [.unsafeFlags(["-swift-version", "6"])]

let package = Package(
    name: "KindRuntime",
    targets: [
        .target(name: "AppleC"),
        .target(name: "CoreGraphics"),
        .target(name: "CoreVideo"),
        .target(name: "CryptoKit"),
        .target(name: "UniformTypeIdentifiers"),
        .target(name: "CoreML", dependencies: ["AppleC", "CoreVideo"]),
        .target(name: "ImageIO", dependencies: ["CoreGraphics"]),
        .target(name: "SwiftUI", dependencies: ["CoreGraphics"]),
        .target(
            name: "KindRuntime", dependencies: ["CoreGraphics", "CoreML", "CryptoKit"],
            resources: [.copy("PrivacyInfo.xcprivacy")], swiftSettings: six),
        .executableTarget(
            name: "KindDraw", dependencies: ["ImageIO", "KindRuntime", "UniformTypeIdentifiers"], swiftSettings: six),
        // no executable: Debian's library of Observation lacks a symbol, which only linking misses
        .target(
            name: "KindSample", dependencies: ["KindRuntime", "SwiftUI"], exclude: ["Assets.xcassets"],
            resources: [.copy("model.kind")], swiftSettings: six),
        .target(name: "Snippets", dependencies: ["KindRuntime"], swiftSettings: six),
        .testTarget(
            name: "KindRuntimeTests", dependencies: ["KindDraw", "KindRuntime"], resources: [.copy("vectors.json")],
            swiftSettings: six),
    ]
)
