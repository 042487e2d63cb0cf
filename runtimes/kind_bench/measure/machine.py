"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from kind_runtimes.documents.results import Machine

_CPUS = Path("/sys/devices/system/cpu")
# where boards with ARM and PCs say what they are
_MODEL_FILES = (Path("/sys/firmware/devicetree/base/model"), Path("/sys/devices/virtual/dmi/id/product_name"))
_PACKAGES = ("onnxruntime", "executorch", "coremltools", "ai-edge-litert", "torch", "numpy", "kind-diffusion")


def describe_machine() -> Machine:
    """`machine` of a results file: this one, with the load that it was under before measuring."""
    described = {
        "system": platform.platform(terse=True),
        "processor": name_processor(),
        "model": _read_model(),
        "num_cpus": os.cpu_count(),
        "memory_bytes": _read_memory(),
        "governor": _read_text(_CPUS / "cpu0" / "cpufreq" / "scaling_governor"),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **_list_versions()},
    }
    return cast(Machine, {name: value for name, value in described.items() if value is not None})


def name_processor() -> str:
    """The processor's name, as near as the system tells it."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    # x86 and some ARM kernels, older ARM boards
    for field in ("model name", "Hardware"):
        if found := re.search(rf"^{field}\s*:\s*(\S.*)$", text, re.MULTILINE):
            return found[1].strip()
    return _read_model() or platform.machine()


def _read_model() -> str | None:
    if sys.platform == "darwin":
        return _sysctl("hw.model")
    return next((text for file in _MODEL_FILES if (text := _read_text(file))), None)


def _read_text(file: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip("\0\n ") or None
    return None


def _read_memory() -> int | None:
    with suppress(ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _sysctl(name: str) -> str | None:
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _list_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
