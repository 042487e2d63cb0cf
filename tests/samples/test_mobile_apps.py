"""What the app stores and the systems' build tools want of the kits and sample apps, as far as files say it."""

from __future__ import annotations

import json
import plistlib
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from kind_runtimes.kits import kit_folder

ROOT = Path(__file__).parents[2]
_KIT = kit_folder("ios") / "KindRuntime"
_IOS = ROOT / "samples" / "ios" / "KindSample.swiftpm"
_ANDROID = ROOT / "samples" / "android"
_APP = _ANDROID / "app"
_RES = _APP / "src" / "main" / "res"
_NAMESPACE = "{http://schemas.android.com/apk/res/android}"
# Apple's "required reason" APIs: file timestamps, system boot time, disk space, active keyboards, user defaults.
_NEEDS_A_REASON = (
    r"\b(creationDate|modificationDate|contentModificationDate|creationDateKey|contentModificationDateKey|getattrlist"
    r"|getattrlistbulk|fgetattrlist|fstat|fstatat|lstat|systemUptime|mach_absolute_time|volumeAvailableCapacity\w*"
    r"|systemFreeSize|systemSize|statfs|statvfs|activeInputModes|UserDefaults)\b|\bstat\("
)


def read_plist(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = plistlib.loads(file.read_bytes())
    return found


def test_the_privacy_manifest_says_what_the_kit_does() -> None:
    said = read_plist(_KIT / "Sources" / "KindRuntime" / "PrivacyInfo.xcprivacy")
    assert said["NSPrivacyTracking"] is False
    assert said["NSPrivacyTrackingDomains"] == said["NSPrivacyCollectedDataTypes"] == []
    assert said["NSPrivacyAccessedAPITypes"] == []
    sources = [*(_KIT / "Sources").rglob("*.swift"), *(_IOS / "Sources").rglob("*.swift")]
    used = {file.name: found[0] for file in sources if (found := re.search(_NEEDS_A_REASON, file.read_text()))}
    assert not used, "such an API needs its reason in PrivacyInfo.xcprivacy"
    assert all('"PrivacyInfo.xcprivacy"' in (place / "Package.swift").read_text() for place in (ROOT, _KIT))


def test_the_ios_sample_has_what_a_store_asks_for() -> None:
    package = (_IOS / "Package.swift").read_text()
    icons = _IOS / "Sources" / "Assets.xcassets" / "AppIcon.appiconset"
    assert 'appIcon: .asset("AppIcon")' in package
    [image] = json.loads((icons / "Contents.json").read_text())["images"]
    with Image.open(icons / image["filename"]) as icon:
        assert (icon.size, icon.mode) == ((1024, 1024), "RGB"), "an icon has no transparency"
        assert len(icon.getcolors(maxcolors=1 << 20) or ()) > 2
    info = read_plist(_IOS / "Info.plist")
    assert 'additionalInfoPlistContentFilePath: "Info.plist"' in package
    assert info["ITSAppUsesNonExemptEncryption"] is False
    # the results of --benchmark are brought home by Files or Finder
    assert info["UIFileSharingEnabled"] is info["LSSupportsOpeningDocumentsInPlace"] is True


def test_documents_and_package_name_the_same_systems() -> None:
    package = (_KIT / "Package.swift").read_text()
    assert "platforms: [.iOS(.v17), .macOS(.v14)]" in package
    assert "iOS 17 or macOS 14, Xcode 16" in (kit_folder("ios") / "README.md").read_text()
    assert "iOS 17, Xcode 16" in (ROOT / "samples" / "ios" / "README.md").read_text()
    for page in (
        "guides/android.md",
        "../runtimes/kind_runtimes/kits/android/README.md",
        "../samples/android/README.md",
    ):
        assert "Android 8 (API 26)" in (ROOT / "docs" / page).read_text(), page
    for part in (_APP, kit_folder("android") / "kind-runtime"):
        assert "minSdk = 26" in (part / "build.gradle.kts").read_text()


def test_the_android_sample_is_built_by_plugin_9_with_its_own_kotlin() -> None:
    catalogue = tomllib.loads((_ANDROID / "gradle" / "libs.versions.toml").read_text())
    assert int(catalogue["versions"]["agp"].split(".")[0]) >= 9
    builds = "".join(
        file.read_text() for file in [*_ANDROID.rglob("*.gradle.kts"), *kit_folder("android").rglob("*.kts")]
    )
    assert "kotlin.android" not in builds + str(catalogue), "plugin 9 compiles Kotlin itself"
    app = (_APP / "build.gradle.kts").read_text()
    for wanted in ("targetSdk = 36", "isMinifyEnabled = true", "isShrinkResources = true"):
        assert wanted in app, wanted


def test_the_wrapper_is_whole_and_fetches_by_hash() -> None:
    wrapper = _ANDROID / "gradle" / "wrapper"
    said = dict(line.split("=", 1) for line in (wrapper / "gradle-wrapper.properties").read_text().splitlines())
    version = re.search(r"gradle-(\d+\.\d+)[\d.]*-bin\.zip$", said["distributionUrl"])
    assert version is not None
    assert f"Gradle {version[1]}" in (_ANDROID / "README.md").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", said["distributionSha256Sum"])
    assert (wrapper / "gradle-wrapper.jar").read_bytes().startswith(b"PK")
    assert (_ANDROID / "gradlew").stat().st_mode & 0o111


def test_the_workflow_builds_a_minified_release() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "android.yml").read_text())["jobs"]["app"]
    run = " ".join(step.get("run", "") for step in job["steps"])
    assert ":app:assembleRelease" in run
    assert "--kit android" in run


def test_the_android_sample_has_an_icon_of_its_own() -> None:
    application = ET.parse(_APP / "src" / "main" / "AndroidManifest.xml").getroot().find("application")
    assert application is not None
    assert application.get(f"{_NAMESPACE}icon") == "@mipmap/ic_launcher"
    icon = ET.parse(_RES / "mipmap-anydpi-v26" / "ic_launcher.xml").getroot()
    assert {layer.tag for layer in icon} == {"background", "foreground", "monochrome"}
    for layer in icon:
        kind, name = (layer.get(f"{_NAMESPACE}drawable") or "").lstrip("@").split("/")
        values = (_RES / "values").glob("*.xml")
        held = (_RES / kind / f"{name}.xml").exists() or any(f'name="{name}"' in file.read_text() for file in values)
        assert held, name


@pytest.mark.parametrize("wanted", ["FlowRow(", "androidx.compose.material3.FilterChip"])
def test_class_chips_wrap_in_material_3(wanted: str) -> None:
    screen = (_APP / "src" / "main" / "kotlin" / "dev" / "kind" / "sample" / "StudioScreen.kt").read_text()
    assert wanted in screen
    assert not re.search(r"androidx\.compose\.material\.", screen)
