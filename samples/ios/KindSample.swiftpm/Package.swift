// swift-tools-version: 5.9
import AppleProductTypes
import PackageDescription

let package = Package(
    name: "KindSample",
    platforms: [.iOS("17.0")],
    products: [
        .iOSApplication(
            name: "KindSample",
            targets: ["KindSample"],
            bundleIdentifier: "dev.kind.sample",
            displayVersion: "1.0",
            bundleVersion: "1",
            appIcon: .asset("AppIcon"),
            accentColor: .presetColor(.green),
            supportedDeviceFamilies: [.phone, .pad],
            supportedInterfaceOrientations: [.portrait, .landscapeLeft, .landscapeRight],
            additionalInfoPlistContentFilePath: "Info.plist"
        )
    ],
    dependencies: [
        .package(path: "../../../runtimes/kind_runtimes/kits/ios/KindRuntime")
    ],
    targets: [
        .executableTarget(
            name: "KindSample",
            dependencies: ["KindRuntime"],
            path: "Sources",
            resources: [.process("Assets.xcassets"), .copy("model.kind")]
        )
    ]
)
