// Core ML as far as the kit calls it, with the signatures of its Swift interface. `MLModel.run` stands in for programs.
import CoreVideo
@_exported import AppleC
@_exported import Foundation

public final class MLModelConfiguration: NSObject {
    public var computeUnits = MLComputeUnits.all
    public var functionName: String?
}

public protocol MLFeatureProvider: AnyObject {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    private let values: [String: MLFeatureValue]
    public var featureNames: Set<String> { Set(values.keys) }
    public init(dictionary: [String: Any]) throws { values = dictionary.mapValues { $0 as! MLFeatureValue } }
    public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

public protocol MLShapedArrayScalar {}
extension Int32: MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar: MLShapedArrayScalar>: @unchecked Sendable {
    public let shape: [Int]
    public let scalars: [Scalar]

    public init<S: Sequence>(scalars: S, shape: [Int]) where Scalar == S.Element {
        (self.scalars, self.shape) = (Array(scalars), shape)
        precondition(self.scalars.count == shape.reduce(1, *))
    }
}

public final class MLFeatureValue: NSObject {
    private let value: Any
    public var imageBufferValue: CVPixelBuffer? { value as? CVPixelBuffer }

    public init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) { value = shapedArray }
    public init(pixelBuffer: CVPixelBuffer) { value = pixelBuffer }

    public func shapedArrayValue<Scalar: MLShapedArrayScalar>(of type: Scalar.Type) -> MLShapedArray<Scalar>? {
        value as? MLShapedArray<Scalar>
    }
}

public final class MLPredictionOptions: NSObject {}

public final class MLModel: NSObject {
    /// What is asked of a program: the folder that was compiled, as it was called, and how it was loaded.
    public struct Call {
        public let program: String
        public let units: MLComputeUnits
        public let function: String?
        public let inputs: any MLFeatureProvider
    }

    /// Set by a test before it opens anything.
    public nonisolated(unsafe) static var run: @Sendable (Call) async throws -> [String: MLFeatureValue] = { _ in
        throw CocoaError(.featureUnsupported)
    }
    public nonisolated(unsafe) static var numCompiled = 0
    public nonisolated(unsafe) static var loaded: [MLComputeUnits] = []

    private let program: String
    private let configuration: MLModelConfiguration

    private init(_ program: String, _ configuration: MLModelConfiguration) {
        (self.program, self.configuration) = (program, configuration)
    }

    public class func compileModel(at url: URL) async throws -> URL {
        let compiled = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).mlmodelc")
        try FileManager.default.copyItem(at: url, to: compiled)
        try Data(url.lastPathComponent.utf8).write(to: compiled.appendingPathComponent("name"))
        numCompiled += 1
        return compiled
    }

    public class func load(
        contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
    ) async throws -> MLModel {
        let name = try String(contentsOf: url.appendingPathComponent("name"), encoding: .utf8)
        loaded.append(configuration.computeUnits)
        return MLModel(name, configuration)
    }

    /// Of one thread at a time, so it must not be the one that the kit calls.
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        fatalError("the prediction for one thread at a time was called")
    }

    public func prediction(
        from input: any MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
    ) async throws -> any MLFeatureProvider {
        let call = Call(
            program: program, units: configuration.computeUnits, function: configuration.functionName, inputs: input)
        return try await MLDictionaryFeatureProvider(dictionary: Self.run(call))
    }
}

public struct MLCPUComputeDevice: Hashable, Sendable { public init() {} }
public struct MLGPUComputeDevice: Hashable, Sendable { public init() {} }
public struct MLNeuralEngineComputeDevice: Hashable, Sendable { public init() {} }

public enum MLComputeDevice: Hashable, Sendable {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

public enum MLModelStructure: Sendable {
    public struct Program: Sendable {
        public struct Operation: Sendable {}
        public struct Block: Sendable { public let operations: [Operation] }
        public struct Function: Sendable { public let block: Block }
        public let functions: [String: Function]
    }

    case program(Program)
    case unsupported
}

public final class MLComputePlan {
    public struct DeviceUsage: Sendable {
        public let preferred: MLComputeDevice
    }

    /// Set by a test: what Core ML would run the operations on, asked for some units.
    public nonisolated(unsafe) static var preferred: @Sendable (MLComputeUnits) -> MLComputeDevice? = { units in
        switch units {
        case .cpuAndNeuralEngine: .neuralEngine(MLNeuralEngineComputeDevice())
        case .cpuAndGPU: .gpu(MLGPUComputeDevice())
        default: .cpu(MLCPUComputeDevice())
        }
    }

    public let modelStructure = MLModelStructure.program(
        .init(functions: ["main": .init(block: .init(operations: [.init(), .init()]))]))
    private let units: MLComputeUnits

    private init(_ units: MLComputeUnits) { self.units = units }

    public static func load(
        contentsOf url: URL, configuration: MLModelConfiguration
    ) async throws -> MLComputePlan {
        _ = try String(contentsOf: url.appendingPathComponent("name"), encoding: .utf8)
        return MLComputePlan(configuration.computeUnits)
    }

    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
        Self.preferred(units).map(DeviceUsage.init)
    }
}

@available(*, unavailable)
extension MLComputePlan: Sendable {}

extension ProcessInfo {
    public typealias ThermalState = AppleC.ThermalState
    public var thermalState: ThermalState { .nominal }
    public var isLowPowerModeEnabled: Bool { false }
}
