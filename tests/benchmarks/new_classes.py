"""All methods on new classes at the smallest scale, from nothing: the table of docs/guides/compare.md.

    apt-get install dataset-fashion-mnist
    pip install -e '.[benchmark]'
    python tests/benchmarks/new_classes.py work

A base and its dense twin learn six garments at 16 x 16 pixels, a classifier on other photos learns to judge, then every
method adapts its base to the other four, with three seeds. Called again it goes on where it ended. What is given
behind `--` goes to the suite: `-- --methods tailors,lora`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BASE, NEW = "T-shirt,trouser,pullover,sandal,shirt,ankle_boot", "dress,coat,sneaker,bag"
FIT = ("--size", "16", "--images", "48000", "--batch-size", "32", "--save-every", "8000", "--compute", "fp32")
NONE = ("--inception-weights", "none", "--dinov2", "none")
SUITE = ("--steps", "8", "--images", "1280", "--batch-size", "16", "--count", "40", "--seeds", "0,1,2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of data, bases, judge and results")
    parser.add_argument("options", nargs="*", help="of the suite, behind --")
    arguments = parser.parse_args()
    work, data = arguments.work, arguments.work / "data"
    if not data.exists():
        run([str(Path(__file__).with_name("garments_data.py")), str(data)])
    for name, preset in (("base", "garments"), ("dense", "dit-garments")):
        if not (work / name / "done").exists():
            resume = ["--resume"] if (work / name).exists() else []
            photos = ["--data", f"{data}/train.parquet", "--val-data", f"{data}/val.parquet", "--classes", BASE]
            train(["fit", "--preset", preset, *photos, *FIT, "--output", f"{work}/{name}", *resume])
            (work / name / "done").touch()
    judge, real, table = work / "judge.safetensors", work / "real.safetensors", work / "table"
    if not judge.exists():
        train(["classifier", "--data", f"{data}/judge.parquet", "--size", "16", "--output", str(judge)])
    if not real.exists():
        photos = ["--data", f"{data}/val.parquet", "--classes", NEW, "--size", "16"]
        train(["statistics", *photos, "--classifier", str(judge), *NONE, "--output", str(real)])
    bases = ["--checkpoint", f"{work}/base/best", "--dense", f"{work}/dense/best", "--data", f"{data}/new.parquet"]
    judged = ["--real", str(real), "--classifier", str(judge), *NONE]
    resume = ["--resume"] if table.exists() else []
    train(["benchmark", "novel-classes", *bases, *judged, *SUITE, *arguments.options, "--output", str(table), *resume])


def train(words: list[str]) -> None:
    """One call of kind-train, in this Python; ends with it where it fails."""
    run(["-c", "from kind_train.cli import main; main()", *words])


def run(words: list[str]) -> None:
    code = subprocess.run([sys.executable, *words], check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
