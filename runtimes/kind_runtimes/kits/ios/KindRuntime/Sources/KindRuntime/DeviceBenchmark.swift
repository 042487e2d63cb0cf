#if canImport(CoreML)
import CoreML

extension BenchmarkResults {
    /// Measures the Core ML programs of a bundle on the compute units of this device. Every unit is held against the
    /// bundle's whole golden trajectory first; those that draw something else are named with the reason and not timed.
    ///
    /// Run it in a release build, on a cool device on its charger, with nothing else open.
    public static func measure(
        _ bundle: KindBundle, units: [UnitKind] = UnitKind.allCases, repeats: Int = 20, warmup: Int = 3,
        onCase: @Sendable (Case) -> Void = { _ in }
    ) async throws -> BenchmarkResults {
        let created = Date()
        let machine = Machine.current
        let ladder = Ladder(
            manifest: bundle.manifest, golden: try bundle.checkedGolden(),
            peakMemoryBytes: { Machine.peakFootprintBytes })
        var (checked, cases): ([ComputeUnit], [Case]) = ([], [])
        for provider in CoreMLProvider.all(of: bundle) where units.contains(provider.kind) {
            let unit = await ladder.measure(provider, steps: bundle.manifest.steps)
            checked.append(unit)
            guard unit.isTaken else { continue }
            let stopwatch = Stopwatch(repeats: repeats, warmup: warmup)
            let measured = try await measure(bundle, provider, unit, stopwatch, machine.system)
            onCase(measured)
            cases.append(measured)
        }
        return BenchmarkResults(
            created: created,
            bundle: BundleName(name: bundle.manifest.name, manifestSha256: try bundle.manifestSha256()),
            machine: machine, units: checked, cases: cases)
    }

    private static func measure(
        _ bundle: KindBundle, _ provider: any Provider, _ unit: ComputeUnit, _ stopwatch: Stopwatch, _ system: String
    ) async throws -> Case {
        let clock = ContinuousClock()
        let start = clock.now
        let generator = KindGenerator(manifest: bundle.manifest, programs: try await provider.open(), unit: unit)
        let loadMs = (clock.now - start) / .milliseconds(1)
        let times = try await stopwatch.measure(generator)
        return Case(
            runtime: unit.runtime, engine: "Core ML of \(system)", provider: unit.name,
            precision: try bundle.manifest.target(unit.runtime).precision, warmup: stopwatch.warmup,
            stepMs: times.step, stepUnguidedMs: times.stepUnguided, decodeMs: times.decode,
            wholeImageMs: times.wholeImage, loadMs: Load(first: unit.firstLoadMs ?? loadMs, again: loadMs),
            peakMemoryBytes: Machine.peakFootprintBytes, memoryMeasure: "phys_footprint")
    }
}

extension BenchmarkResults.Machine {
    static var current: Self {
        let process = ProcessInfo.processInfo
        let version = process.operatingSystemVersion
        #if os(macOS)
        let (name, processor) = ("macOS", read("machdep.cpu.brand_string"))
        #else
        let (name, processor) = ("iOS", read("hw.machine"))  // such as iPhone17,3
        #endif
        return Self(
            system: "\(name) \(version.majorVersion).\(version.minorVersion)", processor: processor,
            numCpus: process.processorCount, memoryBytes: process.physicalMemory,
            thermalState: process.thermalState.name, lowPowerMode: process.isLowPowerModeEnabled)
    }

    /// A text that the system keeps of the hardware.
    private static func read(_ name: String) -> String {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "unknown" }
        var text = [UInt8](repeating: 0, count: size)
        guard sysctlbyname(name, &text, &size, nil, 0) == 0 else { return "unknown" }
        return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
    }

    /// The most memory that this process was charged with, as the system's limit counts it.
    static var peakFootprintBytes: UInt64? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
        let status = withUnsafeMutablePointer(to: &info) { pointer in
            pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                // mach_task_self_ is a variable, which Swift 6 takes for shared state
                task_info(task_self_trap(), task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        return status == KERN_SUCCESS ? UInt64(max(0, info.ledger_phys_footprint_peak)) : nil
    }
}

extension ProcessInfo.ThermalState {
    fileprivate var name: String? {
        switch self {
        case .nominal: "nominal"
        case .fair: "fair"
        case .serious: "serious"
        case .critical: "critical"
        @unknown default: nil
        }
    }
}
#endif
