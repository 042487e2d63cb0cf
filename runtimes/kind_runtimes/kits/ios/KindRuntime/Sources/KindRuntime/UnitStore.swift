import Foundation

/// Where it is kept between starts of an app which compute units draw right. What was found counts for one version of
/// the app, of the system (whose drivers come with it) and of the bundle; after a change of any, units are checked again.
public struct UnitStore: Sendable {
    let folder: URL
    let appVersion: String
    let systemVersion: String

    /// - Parameters:
    ///   - folder: Where the app keeps what can be made again.
    ///   - systemVersion: Must change when the system is updated.
    public init(folder: URL, appVersion: String, systemVersion: String) {
        self.folder = folder
        self.appVersion = appVersion
        self.systemVersion = systemVersion
    }

    /// In the caches folder of this app.
    public static var standard: UnitStore? {
        let folder = try? FileManager.default.url(
            for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let info = Bundle.main.infoDictionary
        let versions = ["CFBundleShortVersionString", "CFBundleVersion"].map { info?[$0] as? String ?? "" }
        return folder.map {
            UnitStore(
                folder: $0.appendingPathComponent("KindRuntime"), appVersion: versions.joined(separator: " "),
                systemVersion: ProcessInfo.processInfo.operatingSystemVersionString)
        }
    }

    func notes(of bundleSha256: String) -> UnitNotes {
        UnitNotes(
            file: folder.appendingPathComponent("units-\(bundleSha256.prefix(16)).json"),
            kept: .init(appVersion: appVersion, systemVersion: systemVersion, bundleSha256: bundleSha256))
    }
}

/// What is known of a bundle's units here. A file that cannot be read or written costs a check, nothing else.
actor UnitNotes {
    /// How many times in a row a unit gave nothing, and when the last was.
    struct Failures: Codable {
        let times: Int
        let last: Date
    }

    struct Kept: Codable {
        let appVersion: String
        let systemVersion: String
        let bundleSha256: String
        var units: [String: ComputeUnit] = [:]
        var attempts: [String: Int] = [:]
        /// Earlier versions write none, and pass it over.
        var failures: [String: Failures]?

        func isFor(_ other: Kept) -> Bool {
            (appVersion, systemVersion, bundleSha256) == (other.appVersion, other.systemVersion, other.bundleSha256)
        }
    }

    private static let maxFailures = 2
    private static let patience: TimeInterval = 24 * 3600

    private let file: URL?
    private var kept: Kept

    /// Notes that are not kept, without a file.
    init(file: URL? = nil, kept: Kept = Kept(appVersion: "", systemVersion: "", bundleSha256: "")) {
        self.file = file
        let read = file.flatMap { try? Data(contentsOf: $0) }.flatMap { try? JSONDecoder().decode(Kept.self, from: $0) }
        self.kept = read.flatMap { $0.isFor(kept) ? $0 : nil } ?? kept
    }

    func unit(_ name: String) -> ComputeUnit? {
        kept.units[name]
    }

    /// How often checking a unit began and neither ended nor failed: the process died of it, or was ended.
    func attempts(_ name: String) -> Int {
        kept.attempts[name] ?? 0
    }

    /// Called before a unit is opened, so that the next start knows of it if this one ends here.
    func begin(_ name: String) {
        kept.attempts[name] = attempts(name) + 1
        write()
    }

    /// Whether a unit that is refused is tried again: where it gave nothing, not even something wrong, the phone may have
    /// been busy or the app in the background. A day later that has passed; of what fails again it is not why.
    func isDue(_ name: String, at now: Date) -> Bool {
        guard let failures = kept.failures?[name], failures.times < Self.maxFailures else { return false }
        // of a clock that was set back nothing is known
        return !(0..<Self.patience).contains(now.timeIntervalSince(failures.last))
    }

    /// `failedAt` is the time where the unit is refused because it gave nothing.
    func put(_ unit: ComputeUnit, failedAt: Date? = nil) {
        kept.units[unit.name] = unit
        kept.attempts[unit.name] = nil
        var failures = kept.failures ?? [:]
        let times = failures[unit.name]?.times ?? 0
        failures[unit.name] = failedAt.map { Failures(times: times + 1, last: $0) }
        kept.failures = failures
        write()
    }

    /// They are checked anew at the next start; which ones failed stays known.
    func forget(_ names: [String]) {
        for name in names { kept.units[name] = nil }
        write()
    }

    private func write() {
        guard let file, let data = try? JSONEncoder().encode(kept) else { return }
        let folder = file.deletingLastPathComponent()
        try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try? data.write(to: file, options: .atomic)
    }
}
