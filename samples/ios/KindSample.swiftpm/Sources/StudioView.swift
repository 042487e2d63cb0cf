import KindRuntime
import SwiftUI

struct StudioView: View {
    let studio: Studio
    @State private var selection: ClassInfo?
    @State private var seed: UInt64 = 7

    var body: some View {
        NavigationStack {
            Form {
                Section { picture }
                Section {
                    Picker("Class", selection: $selection) {
                        ForEach(studio.classes) { Text($0.name).tag(Optional($0)) }
                    }
                    LabeledContent("Seed") {
                        HStack {
                            TextField("Seed", value: $seed, format: .number.grouping(.never))
                                .keyboardType(.numberPad)
                                .multilineTextAlignment(.trailing)
                            Button("Random", systemImage: "dice") { seed = .random(in: 0...9999) }
                                .labelStyle(.iconOnly)
                        }
                    }
                    action
                } footer: {
                    status
                }
                Section { benchmark }
            }
            .navigationTitle("KIND")
            .onChange(of: studio.classes, initial: true) { selection = studio.classes.first }
        }
    }

    private var picture: some View {
        ZStack {
            RoundedRectangle(cornerRadius: 12).fill(.quaternary)
            if let image = studio.image {
                Image(decorative: image, scale: 1)
                    .resizable()
                    .interpolation(.high)
                    .clipShape(.rect(cornerRadius: 12))
            }
        }
        .aspectRatio(1, contentMode: .fit)
        .accessibilityElement()
        .accessibilityLabel(selection.map { "Picture of \($0.name)" } ?? "No picture")
        .accessibilityAddTraits(.isImage)
    }

    @ViewBuilder private var action: some View {
        if case .drawing = studio.phase {
            Button("Stop", role: .cancel) { studio.stop() }
        } else {
            Button("Draw") {
                if let selection { studio.draw(selection, seed: seed) }
            }
            .disabled(!studio.isIdle || selection == nil)
        }
    }

    @ViewBuilder private var status: some View {
        switch studio.phase {
        case .opening: Text("Opening the model")
        case .drawing(let step, let steps): ProgressView(value: Double(step), total: Double(steps))
        case .measuring: Text("Measuring")
        case .failed(let reason): Text(reason).foregroundStyle(.red)
        case .ready:
            if let unit = studio.unit, let time = studio.drawingTime {
                Text("Drawn on \(unit) in \(time.formatted(.units(allowed: [.seconds, .milliseconds])))")
            }
        }
    }

    @ViewBuilder private var benchmark: some View {
        Button("Measure this device") { Task { await studio.measure() } }
            .disabled(!studio.isIdle)
        if let results = studio.results {
            ShareLink("Share results", item: results)
        }
    }
}
