import XCTest

@testable import KindDraw
@testable import KindRuntime

/// What `kind-draw` understands, and how it says no.
final class ArgumentsTests: XCTestCase {
    func testEveryOptionIsRead() throws {
        let words = ["panda.kind", "--class", "panda", "--seed", "18446744073709551615", "--guidance", "2.5"]
        let arguments = try Arguments(words + ["-o", "panda.png", "--force"])
        XCTAssertEqual(arguments.bundle, "panda.kind")
        XCTAssertEqual(arguments.className, "panda")
        XCTAssertEqual(arguments.seed, .max)
        XCTAssertEqual(arguments.guidance, 2.5)
        XCTAssertEqual(arguments.output, "panda.png")
        XCTAssertTrue(arguments.isForced)
        XCTAssertTrue(try Arguments(["--help"]).wantsHelp)
        XCTAssertEqual(try Arguments(["panda.kind", "--measure", "results.json"]).results, "results.json")
        XCTAssertEqual(try Arguments(["base.kind", "--pack", "koala.pack"]).pack, "koala.pack")
    }

    func testSlipsAreNamed() {
        let slips = [
            ([], "no bundle was given"),
            (["a.kind", "b.kind"], "'b.kind' is not expected here"),
            (["a.kind", "--clas", "panda"], "'--clas' is not expected here"),
            (["a.kind", "--class"], "--class has no value"),
            (["a.kind", "--seed", "-1"], "--seed is '-1', expected a number"),
            (["a.kind", "--class", "panda", "--pack", "koala.pack"], "both --class and --pack were given"),
            (["a.kind", "--measure", "r.json", "-o", "panda.png"], "-o does not go with --measure"),
        ]
        for (words, says) in slips {
            XCTAssertThrowsError(try Arguments(words), "\(words)") { error in
                let found = (error as? KindError)?.message ?? ""
                XCTAssertTrue(found.hasPrefix(says), found)
            }
        }
    }
}
