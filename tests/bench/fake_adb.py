"""An `adb` whose device is a folder: its shell is this machine's, with the device's paths moved below that folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ADB = """#!{python}
import json, os, re, shutil, subprocess, sys
root = {root!r}
arguments = sys.argv[1:]
with open(os.path.join(root, "calls.jsonl"), "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments == ["devices"]:
    sys.stdout.write(open(os.path.join(root, "devices")).read())
    sys.exit(0)
flag, serial, command, *rest = arguments
assert flag == "-s", arguments
moved = lambda path: path if path.startswith(root) else root + path
if command == "push":
    source, place = rest[0], moved(rest[1])
    if not os.path.isdir(os.path.dirname(place)):
        sys.exit("adb: error: failed to copy: remote couldn't create file")
    shutil.copytree(source, place) if os.path.isdir(source) else shutil.copy(source, place)
elif command == "pull":
    shutil.copy(moved(rest[0]), rest[1])
else:
    line = " ".join(rest)  # as adb does
    line = re.sub(r"(?<![\\w./-])(?=/(?:data|sdcard)/)", lambda found: root, line)
    environment = dict(os.environ, PATH=os.path.join(root, "bin") + ":" + os.environ["PATH"])
    sys.exit(subprocess.run(["sh", "-c", line], env=environment).returncode)
"""
# Looks for `--es out` and does what the file `behaviour` says; the app's process is there while `running` is.
AM = """#!{python}
import os, sys
root = {root!r}
if sys.argv[1] == "force-stop":
    open(os.path.join(root, "stopped"), "w").close()
    sys.exit(0)
extras = {{sys.argv[i + 1]: sys.argv[i + 2] for i, word in enumerate(sys.argv) if word == "--es"}}
behaviour = open(os.path.join(root, "behaviour")).read()
os.makedirs(os.path.dirname(extras["out"]), exist_ok=True)
print("Starting: Intent")
if behaviour == "missing":
    print("Error: Activity class does not exist.")
elif behaviour == "results":
    assert os.path.isfile(os.path.join(extras["bundle"], "manifest.json"))
    data = open(os.path.join(root, "results.json")).read()
    open(extras["out"], "w").write(data)
elif behaviour == "failure":
    open(extras["out"] + ".error", "w").write("out of memory\\nin onnxruntime\\n")
if behaviour != "crash":
    open(os.path.join(root, "running"), "w").close()
"""
PM = '#!/bin/sh\ntest -e {root}/installed && echo "package:/data/app/base.apk"\n'
PIDOF = "#!/bin/sh\ntest -e {root}/running\n"


class FakeDevice:
    """What the device says and does; the sample app is installed and gives `results`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "device"
        (self.root / "bin").mkdir(parents=True)
        (self.root / "data" / "local" / "tmp").mkdir(parents=True)
        (self.root / "sdcard").mkdir()
        self.tools = folder / "tools"
        self.tools.mkdir()
        scripts = {
            self.tools / "adb": ADB,
            **{self.root / "bin" / n: s for n, s in (("am", AM), ("pm", PM), ("pidof", PIDOF))},
        }
        for file, text in scripts.items():
            file.write_text(text.format(root=str(self.root), python=sys.executable))
            file.chmod(0o755)
        self.devices("SERIAL1\tdevice")
        self.install(True)
        self.behave("results")

    def devices(self, *lines: str) -> None:
        (self.root / "devices").write_text("\n".join(["List of devices attached", *lines, ""]))

    def install(self, installed: bool) -> None:
        file = self.root / "installed"
        file.touch() if installed else file.unlink()

    def behave(self, how: str, results: dict[str, Any] | None = None) -> None:
        (self.root / "behaviour").write_text(how)
        (self.root / "results.json").write_text(json.dumps(results or {}))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.root / "calls.jsonl").read_text().splitlines()]

    def files(self) -> list[str]:
        """What lies in the two places that may be written."""
        held = (file for top in ("data", "sdcard") for file in (self.root / top).rglob("*") if file.is_file())
        return sorted(str(file.relative_to(self.root)) for file in held)
