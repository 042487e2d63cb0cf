// Core Video as far as the kit calls it: pixels in rows that are longer than the picture.
import Foundation

public final class CVPixelBuffer {
    let (width, height, format): (Int, Int, OSType)
    let bytesPerRow: Int
    let base: UnsafeMutableRawPointer

    /// BGRA from red, green and blue, rows padded as a GPU pads them.
    public init(rgb: [UInt8], width: Int, height: Int, format: OSType = kCVPixelFormatType_32BGRA) {
        (self.width, self.height, self.format) = (width, height, format)
        bytesPerRow = (width * 4 + 63) / 64 * 64
        base = .allocate(byteCount: bytesPerRow * height, alignment: 64)
        for (index, value) in rgb.enumerated() {
            let (pixel, channel) = (index / 3, index % 3)
            base.storeBytes(
                of: value, toByteOffset: pixel / width * bytesPerRow + pixel % width * 4 + 2 - channel, as: UInt8.self)
        }
    }

    deinit { base.deallocate() }
}

public typealias OSType = UInt32
public typealias CVReturn = Int32
public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241
public let kCVReturnSuccess: CVReturn = 0

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)
}

public func CVPixelBufferGetPixelFormatType(_ buffer: CVPixelBuffer) -> OSType { buffer.format }
public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { buffer.width }
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { buffer.height }
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { buffer.bytesPerRow }
public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? { buffer.base }
@discardableResult
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { 0 }
@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { 0 }
