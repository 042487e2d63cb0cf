// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "KindRuntime",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "KindRuntime", targets: ["KindRuntime"]),
        .executable(name: "kind-draw", targets: ["KindDraw"])
    ],
    targets: [
        .target(name: "KindRuntime", resources: [.copy("PrivacyInfo.xcprivacy")]),
        .executableTarget(name: "KindDraw", dependencies: ["KindRuntime"]),
        .testTarget(
            name: "KindRuntimeTests",
            dependencies: ["KindRuntime"],
            resources: [.copy("vectors.json")]
        )
    ]
)
