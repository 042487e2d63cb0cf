// SwiftUI as far as the sample app calls it: its views have types and hold nothing.
@_exported import CoreGraphics
@_exported import Foundation

@MainActor @preconcurrency
public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View { public var body: Never { return fatalError() } }

public protocol Piece: View where Body == Never {}
extension Piece { public var body: Never { return fatalError() } }
public struct Anything: Piece { public init() {} }

@resultBuilder
public struct ViewBuilder {
    @MainActor
    public static func buildBlock<each Content: View>(_ content: repeat each Content) -> some View { Anything() }
    @MainActor public static func buildIf<Content: View>(_ content: Content?) -> some View { Anything() }
    @MainActor public static func buildEither<Content: View>(first: Content) -> Anything { Anything() }
    @MainActor public static func buildEither<Content: View>(second: Content) -> Anything { Anything() }
}

@MainActor @preconcurrency
public protocol App {
    associatedtype Body: Scene
    @MainActor @preconcurrency var body: Body { get }
    init()
}
extension App { public static func main() { print("SwiftUI draws nothing here") } }

@MainActor @preconcurrency
public protocol Scene {}
public struct WindowGroup<Content: View>: Scene { public init(@ViewBuilder content: () -> Content) {} }

@propertyWrapper
public struct State<Value> {
    public var wrappedValue: Value { get { initial } nonmutating set {} }
    public var projectedValue: Binding<Value> { Binding() }
    private let initial: Value
    public init(wrappedValue: Value) { initial = wrappedValue }
}
extension State where Value: ExpressibleByNilLiteral { public init() { initial = nil } }
public struct Binding<Value> {}

public struct LocalizedStringKey: ExpressibleByStringInterpolation { public init(stringLiteral value: String) {} }

public protocol ShapeStyle {}
public struct Color: ShapeStyle {}
public struct HierarchicalShapeStyle: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle { public static var quaternary: Self { .init() } }
extension ShapeStyle where Self == Color { public static var red: Self { .init() } }

public protocol Shape: View {}
public struct RoundedRectangle: Shape, Piece { public init(cornerRadius: CGFloat) {} }
extension Shape where Self == RoundedRectangle {
    public static func rect(cornerRadius: CGFloat) -> Self { .init(cornerRadius: cornerRadius) }
}
extension Shape { public func fill<S: ShapeStyle>(_ content: S) -> some View { Anything() } }

public struct Text: Piece {
    public init(_ key: LocalizedStringKey) {}
    @_disfavoredOverload public init<S: StringProtocol>(_ content: S) {}
}
public struct Image: Piece {
    public enum Interpolation: Sendable { case none, low, medium, high }
    public init(decorative image: CGImage, scale: CGFloat) {}
    public func resizable() -> Image { self }
    public func interpolation(_ interpolation: Interpolation) -> Image { self }
}
public struct ProgressView: Piece { public init<V: BinaryFloatingPoint>(value: V?, total: V = 1) {} }
public struct NavigationStack<Content: View>: Piece { public init(@ViewBuilder root: () -> Content) {} }
public struct Form<Content: View>: Piece { public init(@ViewBuilder content: () -> Content) {} }
public struct HStack<Content: View>: Piece { public init(@ViewBuilder content: () -> Content) {} }
public struct ZStack<Content: View>: Piece { public init(@ViewBuilder content: () -> Content) {} }
public struct LabeledContent<Content: View>: Piece {
    public init(_ key: LocalizedStringKey, @ViewBuilder content: () -> Content) {}
}
public struct Section<Content: View, Footer: View>: Piece {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder footer: () -> Footer) {}
}
extension Section where Footer == Anything { public init(@ViewBuilder content: () -> Content) {} }
public struct Picker<Selection: Hashable, Content: View>: Piece {
    public init(_ key: LocalizedStringKey, selection: Binding<Selection>, @ViewBuilder content: () -> Content) {}
}
public struct ForEach<Items: RandomAccessCollection, Content: View>: Piece where Items.Element: Identifiable {
    public init(_ data: Items, @ViewBuilder content: @escaping (Items.Element) -> Content) {}
}
public struct TextField: Piece {
    public init<F: ParseableFormatStyle>(_ key: LocalizedStringKey, value: Binding<F.FormatInput>, format: F)
    where F.FormatOutput == String {}
}
public enum ButtonRole: Sendable { case cancel, destructive }
public struct Button: Piece {
    public init(_ key: LocalizedStringKey, action: @escaping @MainActor () -> Void) {}
    public init(_ key: LocalizedStringKey, role: ButtonRole?, action: @escaping @MainActor () -> Void) {}
    public init(_ key: LocalizedStringKey, systemImage: String, action: @escaping @MainActor () -> Void) {}
}
public struct ShareLink: Piece { public init(_ key: LocalizedStringKey, item: URL) {} }

public enum UIKeyboardType: Sendable { case `default`, numberPad }
public enum TextAlignment: Sendable { case leading, center, trailing }
public enum ContentMode: Sendable { case fit, fill }
public enum AccessibilityTraits: Sendable { case isImage, isButton }
public protocol LabelStyle {}
public struct IconOnlyLabelStyle: LabelStyle {}
extension LabelStyle where Self == IconOnlyLabelStyle { public static var iconOnly: Self { .init() } }

extension View {
    public func task(
        priority: TaskPriority = .userInitiated, @_inheritActorContext _ action: @escaping @Sendable () async -> Void
    ) -> some View { Anything() }
    public func onChange<V: Equatable>(of value: V, initial: Bool = false, _ action: @escaping () -> Void) -> some View {
        Anything()
    }
    public func tag<V: Hashable>(_ tag: V) -> some View { Anything() }
    public func disabled(_ disabled: Bool) -> some View { Anything() }
    public func navigationTitle(_ key: LocalizedStringKey) -> some View { Anything() }
    public func keyboardType(_ type: UIKeyboardType) -> some View { Anything() }
    public func multilineTextAlignment(_ alignment: TextAlignment) -> some View { Anything() }
    public func labelStyle<S: LabelStyle>(_ style: S) -> some View { Anything() }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> some View { Anything() }
    public func clipShape<S: Shape>(_ shape: S) -> some View { Anything() }
    public func aspectRatio(_ ratio: CGFloat? = nil, contentMode: ContentMode) -> some View { Anything() }
    public func accessibilityElement() -> some View { Anything() }
    @_disfavoredOverload public func accessibilityLabel<S: StringProtocol>(_ label: S) -> some View { Anything() }
    public func accessibilityLabel(_ key: LocalizedStringKey) -> some View { Anything() }
    public func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View { Anything() }
}
