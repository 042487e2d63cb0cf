// swift-tools-version: 5.9
// The Swift kit as a package of this repository's address; a bundle's ios/ folder holds the same, for use by path.
import PackageDescription

let package = Package(
    name: "KindRuntime",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "KindRuntime", targets: ["KindRuntime"]),
        .executable(name: "kind-draw", targets: ["KindDraw"])
    ],
    targets: [
        .target(
            name: "KindRuntime",
            path: "runtimes/kind_runtimes/kits/ios/KindRuntime/Sources/KindRuntime",
            resources: [.copy("PrivacyInfo.xcprivacy")]
        ),
        .executableTarget(
            name: "KindDraw",
            dependencies: ["KindRuntime"],
            path: "runtimes/kind_runtimes/kits/ios/KindRuntime/Sources/KindDraw"
        ),
        .testTarget(
            name: "KindRuntimeTests",
            dependencies: ["KindRuntime"],
            path: "runtimes/kind_runtimes/kits/ios/KindRuntime/Tests/KindRuntimeTests",
            resources: [.copy("vectors.json")]
        )
    ]
)
