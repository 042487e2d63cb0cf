/// Numbers in C order. A program's integer inputs are numbers too: the manifest says what they become.
public struct Tensor: Equatable, Sendable {
    public let shape: [Int]
    public let values: [Float]

    public init(_ values: [Float], shape: [Int]) {
        precondition(values.count == shape.reduce(1, *), "\(values.count) numbers do not fill \(shape)")
        self.values = values
        self.shape = shape
    }

    static func zeros(_ shape: [Int]) -> Tensor {
        Tensor(Array(repeating: 0, count: shape.reduce(1, *)), shape: shape)
    }

    static func scalar(_ value: Float) -> Tensor {
        Tensor([value], shape: [1])
    }
}

/// A drawn picture: RGB, a byte a channel, row by row from the top.
public struct Picture: Equatable, Sendable {
    public let width: Int
    public let height: Int
    public let pixels: [UInt8]

    public init(width: Int, height: Int, pixels: [UInt8]) {
        precondition(pixels.count == width * height * 3, "\(pixels.count) bytes are no \(width) x \(height) RGB pixels")
        self.width = width
        self.height = height
        self.pixels = pixels
    }
}
