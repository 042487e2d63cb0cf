import Foundation

/// Standard normal numbers from a seed, the same in every language that runs a bundle.
///
/// Philox4x32-10 words, key = the seed's low and high half, counter = the block's number; two normals from each pair of
/// words by Box-Muller in doubles. `vectors.json` of the tests holds words and normals of several seeds.
enum StartNoise {
    static func normals(seed: UInt64, count: Int) -> [Float] {
        var normals: [Float] = []
        normals.reserveCapacity(count + 3)
        for block in 0..<UInt64((count + 3) / 4) {
            let words = philox(block: block, seed: seed)
            for (a, b) in [(words.0, words.1), (words.2, words.3)] {
                let radius = (-2 * log((Double(a) + 1) * 0x1p-32)).squareRoot()
                let angle = 2 * Double.pi * (Double(b) * 0x1p-32)
                normals.append(Float(radius * cos(angle)))
                normals.append(Float(radius * sin(angle)))
            }
        }
        return Array(normals.prefix(count))
    }

    static func philox(block: UInt64, seed: UInt64) -> (UInt32, UInt32, UInt32, UInt32) {
        var counter = (UInt32(truncatingIfNeeded: block), UInt32(block >> 32), UInt32(0), UInt32(0))
        var key = (UInt32(truncatingIfNeeded: seed), UInt32(seed >> 32))
        for _ in 0..<10 {
            let first = counter.0.multipliedFullWidth(by: 0xD251_1F53)
            let second = counter.2.multipliedFullWidth(by: 0xCD9E_8D57)
            counter = (second.high ^ counter.1 ^ key.0, second.low, first.high ^ counter.3 ^ key.1, first.low)
            key = (key.0 &+ 0x9E37_79B9, key.1 &+ 0xBB67_AE85)
        }
        return counter
    }
}
