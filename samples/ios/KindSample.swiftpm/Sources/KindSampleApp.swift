import SwiftUI

@main
struct KindSampleApp: App {
    @State private var studio = Studio()

    var body: some Scene {
        WindowGroup {
            StudioView(studio: studio)
                .task {
                    await studio.open()
                    if CommandLine.arguments.contains("--benchmark") {
                        await studio.measure()
                    }
                }
        }
    }
}
