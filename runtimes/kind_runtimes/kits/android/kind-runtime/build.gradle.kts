plugins {
    id("com.android.library") // from AGP 9 on it compiles Kotlin itself
}

android {
    namespace = "dev.kind.runtime"
    compileSdk = 36
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    api("org.jetbrains.kotlinx:kotlinx-coroutines-core:1.10.2")
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.27.0")
    compileOnly("com.google.ai.edge.litert:litert:2.3.0") // an app that opens LiteRT programs brings it itself

    testImplementation(kotlin("test"))
    testImplementation("junit:junit:4.13.2")
    testImplementation("org.json:json:20240303") // on a phone it is part of Android
}
