// ImageIO as far as `kind-draw` calls it: a file of the picture's bytes stands in for a PNG file.
@_exported import CoreGraphics
import Foundation

public final class CGImageDestination {
    let url: URL
    var image: CGImage?
    init(_ url: URL) { self.url = url }
}

public func CGImageDestinationCreateWithURL(
    _ url: CFURL, _ type: CFString, _ count: Int, _ options: [String: Any]?
) -> CGImageDestination? { type == "public.png" && count == 1 ? CGImageDestination(url) : nil }

public func CGImageDestinationAddImage(
    _ destination: CGImageDestination, _ image: CGImage, _ properties: [String: Any]?
) { destination.image = image }

public func CGImageDestinationFinalize(_ destination: CGImageDestination) -> Bool {
    (try? destination.image?.data.write(to: destination.url)) != nil
}
