// Core Graphics as far as the kit calls it.
import Foundation

public typealias CFData = Data
public typealias CFString = String
public typealias CFURL = URL

public final class CGDataProvider {
    let data: Data
    public init?(data: CFData) { self.data = data }
}

public final class CGColorSpace: Sendable {
    public static let sRGB: CFString = "kCGColorSpaceSRGB"
    public init?(name: CFString) { if name != Self.sRGB { return nil } }
}

public struct CGBitmapInfo: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

public enum CGImageAlphaInfo: UInt32, Sendable { case none, premultipliedLast }
public enum CGColorRenderingIntent: Int32, Sendable { case defaultIntent }

public final class CGImage: @unchecked Sendable {
    public let (width, height): (Int, Int)
    public let data: Data

    public init?(
        width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: CGBitmapInfo, provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool,
        intent: CGColorRenderingIntent
    ) {
        guard bytesPerRow * 8 >= width * bitsPerPixel, provider.data.count >= bytesPerRow * height else { return nil }
        (self.width, self.height, data) = (width, height, provider.data)
    }
}

extension URL {
    /// Of Apple's Foundation alone.
    public static var documentsDirectory: URL { FileManager.default.temporaryDirectory }
}
