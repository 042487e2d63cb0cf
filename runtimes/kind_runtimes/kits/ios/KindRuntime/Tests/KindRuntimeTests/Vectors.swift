import Foundation

@testable import KindRuntime

/// `vectors.json`.
struct Vectors {
    struct Noise {
        let seed: UInt64
        let words: [UInt32]
        let normals: [Float]
    }

    struct Document {
        let what: String
        let text: String
        let isRefused: Bool
    }

    struct File {
        let what: String
        let data: Data
        let isRefused: Bool
        let says: String
        let doesNotFit: Bool
    }

    struct Loop {
        let what: String
        let manifest: Manifest
        let className: String?
        let pack: Data?
        let seed: UInt64
        let guidance: Float?
        let latents: [[Float]]
        let rgb: [UInt8]
    }

    /// Compute units with faults, by kind, and what comes of each in turn.
    struct Ladder {
        struct Found {
            let kind: UnitKind
            let isTaken: Bool
            let psnrDb: Double?
        }

        let what: String
        let manifest: Manifest
        let golden: Data
        let faults: [UnitKind: String]
        let expected: [Found]
    }

    /// Starts of an app whose NPU gave nothing.
    struct Failures {
        struct Start {
            let hour: Int
            let fault: String
            let isTried: Bool
            let takes: UnitKind
        }

        let what: String
        let starts: [Start]
    }

    let noise: [Noise]
    let manifests: [Document]
    let classes: [(query: String, index: Int?)]
    let alike: [(manifest: Manifest, query: String, index: Int?)]
    let packs: [File]
    let loops: [Loop]
    let ladders: [Ladder]
    let failures: [Failures]

    init(contentsOf url: URL) throws {
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as! [String: [[String: Any]]]
        noise = json["noise"]!.map {
            Noise(
                seed: UInt64($0["seed"] as! String)!, words: ($0["words"] as! [NSNumber]).map(\.uint32Value),
                normals: floats($0["normals"]))
        }
        manifests = json["manifests"]!.map {
            Document(
                what: $0["what"] as! String, text: $0["text"] as! String, isRefused: $0["is_refused"] as! Bool)
        }
        classes = json["classes"]!.map { ($0["query"] as! String, $0["index"] as? Int) }
        let document = try JSONSerialization.jsonObject(with: Data(manifests[0].text.utf8)) as! [String: Any]
        alike = try json["alike"]!.map {
            var changed = document
            changed["classes"] = $0["classes"]
            let manifest = try Manifest.parse(JSONSerialization.data(withJSONObject: changed))
            return (manifest, $0["query"] as! String, $0["index"] as? Int)
        }
        packs = json["packs"]!.map {
            File(
                what: $0["what"] as! String, data: Data(base64Encoded: $0["base64"] as! String)!,
                isRefused: $0["is_refused"] as! Bool, says: $0["says"] as? String ?? "",
                doesNotFit: $0["does_not_fit"] as? Bool ?? false)
        }
        loops = try json["loops"]!.map {
            Loop(
                what: $0["what"] as! String,
                manifest: try Manifest.parse(JSONSerialization.data(withJSONObject: $0["manifest"]!)),
                className: $0["class"] as? String,
                pack: ($0["pack"] as? String).flatMap { Data(base64Encoded: $0) },
                seed: UInt64($0["seed"] as! String)!, guidance: ($0["guidance"] as? NSNumber)?.floatValue,
                latents: ($0["latents"] as! [Any]).map(floats),
                rgb: ($0["rgb"] as! [NSNumber]).map(\.uint8Value))
        }
        failures = json["failures"]!.map { entry in
            Failures(
                what: entry["what"] as! String,
                starts: (entry["starts"] as! [[String: Any]]).map {
                    Failures.Start(
                        hour: $0["hour"] as! Int, fault: $0["npu"] as! String, isTried: $0["is_tried"] as! Bool,
                        takes: UnitKind(rawValue: $0["takes"] as! String)!)
                })
        }
        ladders = try json["ladders"]!.map { entry in
            let faults = (entry["units"] as! [String: String]).map { (UnitKind(rawValue: $0.key)!, $0.value) }
            return Ladder(
                what: entry["what"] as! String,
                manifest: try Manifest.parse(JSONSerialization.data(withJSONObject: entry["manifest"]!)),
                golden: Data(base64Encoded: entry["golden"] as! String)!,
                faults: Dictionary(uniqueKeysWithValues: faults),
                expected: (entry["expected"] as! [[String: Any]]).map {
                    Ladder.Found(
                        kind: UnitKind(rawValue: $0["kind"] as! String)!, isTaken: $0["is_taken"] as! Bool,
                        psnrDb: ($0["psnr_db"] as? NSNumber)?.doubleValue)
                })
        }
    }

    /// The manifest that must be read.
    func manifest() throws -> Manifest {
        try Manifest.parse(Data(manifests[0].text.utf8))
    }

    func ladder(_ what: String) throws -> Ladder {
        guard let ladder = ladders.first(where: { $0.what == what }) else {
            throw KindError("no ladder '\(what)'", hint: "Look at the vectors.")
        }
        return ladder
    }

    func loop(_ what: String) throws -> Loop {
        guard let loop = loops.first(where: { $0.what == what }) else {
            throw KindError("no loop '\(what)'", hint: "Look at the vectors.")
        }
        return loop
    }
}

private func floats(_ numbers: Any?) -> [Float] {
    (numbers as! [NSNumber]).map(\.floatValue)
}
