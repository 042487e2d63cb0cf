import XCTest

@testable import KindRuntime

final class KindBundleTests: XCTestCase {
    private var folder: URL!

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    private func bundle(files: [String]) throws -> KindBundle {
        let url = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        let text = try Vectors(contentsOf: url).manifests[0].text
        var manifest = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        manifest["files"] = Dictionary(uniqueKeysWithValues: files.map { ($0, ["sha256": "of \($0)"]) })
        let data = try JSONSerialization.data(withJSONObject: manifest)
        try data.write(to: folder.appendingPathComponent("manifest.json"))
        return try KindBundle(contentsOf: folder)
    }

    func testPackageIsAllOfItsFiles() throws {
        let bundle = try bundle(files: ["coreml/step.mlpackage/b", "coreml/step.mlpackage/a", "coreml/step.mlpackages"])
        let files = try bundle.files(of: "coreml/step.mlpackage")
        XCTAssertEqual(files.map(\.path), ["coreml/step.mlpackage/a", "coreml/step.mlpackage/b"])
        XCTAssertEqual(files.map(\.sha256), ["of coreml/step.mlpackage/a", "of coreml/step.mlpackage/b"])
    }

    func testProgramWithoutFilesIsRefused() throws {
        XCTAssertThrowsError(try bundle(files: ["coreml/step.mlpackage/a"]).files(of: "coreml/decode.mlpackage"))
    }

    func testFileOutsideTheBundleIsRefused() throws {
        XCTAssertThrowsError(try bundle(files: ["p/a", "p/../../b"]).files(of: "p")) {
            XCTAssertTrue(($0 as? KindError)?.message.contains("outside the bundle") ?? false, "\($0)")
        }
    }

    func testFolderWithoutManifestIsRefused() {
        XCTAssertThrowsError(try KindBundle(contentsOf: folder)) { XCTAssertTrue($0 is KindError) }
    }
}
