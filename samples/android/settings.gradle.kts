pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "KindSample"
include(":app", ":kind-runtime")
project(":kind-runtime").projectDir = file("../../runtimes/kind_runtimes/kits/android/kind-runtime")
