"""What diversion is good for: KIND, the same with all gates open, and its dense twin, trained alike.

    pip install -e '.[evaluate]'
    python tests/benchmarks/diversion.py --data photos64-train.parquet --val-data photos64-val.parquet \\
        --images 2000 --count 10 --output /tmp/diversion
    python tests/benchmarks/diversion.py --data photos64-train.parquet --val-data photos64-val.parquet \\
        --config run/options.yaml --preset sample-64 --images 2000000 --device cuda --count 50 --output diversion

Each is a run of `kind-train fit` in a folder of --output, of the same photos in the same order with the same noise;
other options come from --config. A call that was stopped goes on where it was, with the same options.

Printed as Markdown, of the checkpoint with the lowest held-out loss of each run: that loss (same photos, noise and
timesteps for all), the parameters of a model for one class and for all, the share of --count pictures a class
classified as asked beside that of held-out photos, their Frechet distance to the held-out photos on
EfficientNet-Lite0's features with its bootstrap interval, the floor of real photos, and the entropy of what the
classifier says of pictures that the learngene draws alone (table 5 of the paper: the higher, the less of a class is
in it). The model with all gates open is measured so, as it was trained, and once more with its components parted into
a learngene and tailors, each class drawn by its own alone: what is left of it when it is decomposed like KIND.

learngene.png in --output: one row for each row of the table, of the learngene alone with the null label; of the
dense twin, which has none, and of all gates open it is the whole model.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kind_core.checkpoint import load_checkpoint, read_config, save_checkpoint
from kind_core.config import DiTConfig, preset
from kind_core.flops import count_parameters
from kind_core.pictures import make_grid, write_picture
from kind_train.config import TrainConfig
from kind_train.data.photo_set import PhotoSet, load_photos
from kind_train.evaluate.pictures import NULL, CheckpointDrawer, DrawSettings
from kind_train.evaluate.run import EvaluationRequest, evaluate
from kind_train.fit import fit_model
from kind_train.options_file import gather_options, load_options
from kind_train.run.run_folder import OPTIONS_NAME, STATE_NAME
from kind_train.run.trainer import Trainer
from kind_train.start.diversion import part_tailors

_COLUMNS = 8
# What is said on the command line; anything else comes from --config.
_FLAGS: dict[str, type] = {
    "data": str, "val_data": str, "preset": str, "classes": str, "images": int, "batch_size": int,
    "learning_rate": float, "warmup_images": int, "decay_fraction": float, "ema_decay": float, "seed": int,
    "device": str, "save_every": int, "sample_every": int,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    held_out_loss: float
    parameters_of_one_class: float
    parameters_of_all: float
    asked_share: float | None
    real_share: float | None
    distance: float
    low: float
    high: float
    floor: float
    learngene_entropy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file of training options; flags win")
    for name, kind in _FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    parser.add_argument("--count", type=int, default=50, help="pictures a class")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    flags = {name: getattr(arguments, name) for name in _FLAGS}
    flags["classes"] = tuple(filter(None, (flags["classes"] or "").split(",")))
    common = load_options(arguments.config, flags | {"output": str(arguments.output)})
    if common.val_data is None:
        parser.error("--val-data is needed, photos that none of the runs has seen")
    folders = train_all(common)

    held_out = load_held_out(common, folders["KIND"])
    rows = {name: measure(name, folder, common, held_out, arguments.count) for name, folder in folders.items()}
    draw_learngenes(list(folders.values()), common, arguments.output / "learngene.png")
    table = render(list(rows.values()), len(held_out.classes))
    print(table)
    (arguments.output / "table.md").write_text(table + "\n", encoding="utf-8")
    report = {"options": asdict(common), "count": arguments.count, "rows": [asdict(row) for row in rows.values()]}
    (arguments.output / "diversion.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def train_all(common: TrainConfig) -> dict[str, Path]:
    """The checkpoints by the names of the table."""
    output = Path(common.output)
    twin = f"dit-{common.preset.removeprefix('kind-')}"
    learngene_rank = preset(common.preset)[0].learngene_rank
    assert learngene_rank is not None, "a preset with tailors is needed"
    preset(twin)  # an error now rather than after two runs
    kind = train("kind", common, preset=common.preset)
    opened = train("all-gates", common, preset=common.preset, diversion=False)
    dense = train("dense", common, preset=twin)
    parted = output / "all-gates" / "parted"
    apart = part_tailors(load_checkpoint(opened), learngene_rank)
    save_checkpoint(parted, apart.config, apart.model, force=True)
    return {
        "KIND": kind,
        "all gates open": opened,
        "all gates open, drawn by the own gate alone": parted,
        "dense twin": dense,
    }


def train(name: str, common: TrainConfig, **changes: Any) -> Path:
    """One run of `kind-train fit`, taken up where it stands; returns its checkpoint."""
    folder = Path(common.output) / name
    options = {k: v for k, v in asdict(common).items() if v is not None} | {"output": str(folder)} | changes
    is_begun = (folder / STATE_NAME).exists()
    print(f"{name}: {'going on' if is_begun else 'training'} in {folder}", flush=True)
    is_broken_off = (folder / OPTIONS_NAME).exists() and not is_begun
    return fit_model(gather_options(None, options, resume=is_begun), resume=is_begun, force=is_broken_off).checkpoint


def load_held_out(common: TrainConfig, checkpoint: Path) -> PhotoSet:
    config = read_config(checkpoint)
    assert common.val_data is not None
    return load_photos(common.val_data, config.dit.sample_size, classes=tuple(info.id for info in config.classes))


def measure(name: str, folder: Path, common: TrainConfig, held_out: PhotoSet, count: int) -> Row:
    dit = read_config(folder).dit
    assert common.val_data is not None
    print(f"measuring {name}", flush=True)
    report = evaluate(
        EvaluationRequest(
            data=Path(common.data), val_data=Path(common.val_data), checkpoint=folder, count=count, cross_count=0,
            device=common.device, classes=tuple(info.id for info in held_out.classes),
        )
    )  # fmt: skip
    shares = [
        [share.share for share in (one.generated_share, one.real_share) if share is not None] for one in report.classes
    ]
    asked, real = np.mean(shares, axis=0) if all(shares) else (None, None)
    return Row(
        name=name,
        held_out_loss=measure_loss(folder, common, held_out),
        parameters_of_one_class=count_of(dit, 1),
        parameters_of_all=count_of(dit, dit.num_classes),
        asked_share=asked,
        real_share=real,
        distance=report.overall.distance,
        low=report.overall.low,
        high=report.overall.high,
        floor=report.overall_floor.distance,
        learngene_entropy=report.statistics["learngene"].entropy,
    )


def measure_loss(folder: Path, common: TrainConfig, held_out: PhotoSet) -> float:
    """The held-out loss of a checkpoint, as the trainer measures it."""
    checkpoint = load_checkpoint(folder)
    trainer = Trainer(replace(common, output=str(folder), diversion=True), held_out, held_out)
    return trainer.measure_held_out(checkpoint.model.to(trainer.device))


def count_of(dit: DiTConfig, classes: int) -> float:
    """Parameters of a model that draws `classes` classes; what is not decomposed is needed whole."""
    return count_parameters(dit, classes=None if dit.is_dense else classes, labels=classes + 1).total


def draw_learngenes(folders: list[Path], common: TrainConfig, file: Path) -> None:
    pictures: list[np.ndarray] = []
    for folder in folders:
        drawer = CheckpointDrawer(folder, (), DrawSettings(device=common.device))
        pictures += list(drawer.draw(NULL, NULL, _COLUMNS))
    write_picture(file, make_grid(pictures, _COLUMNS), force=True)


def render(rows: list[Row], num_classes: int) -> str:
    lines = [
        f"| trained as | held-out loss | parameters for one class (M) | for all {num_classes} (M) | called as asked "
        "| real photos called so | Frechet distance (95 %) | floor | entropy of the learngene alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = ["-" if one is None else f"{one:.0%}" for one in (row.asked_share, row.real_share)]
        lines.append(
            f"| {row.name} | {row.held_out_loss:.4f} | {row.parameters_of_one_class / 1e6:.3f} "
            f"| {row.parameters_of_all / 1e6:.3f} | {shares[0]} | {shares[1]} "
            f"| {row.distance:.1f} ({row.low:.1f} to {row.high:.1f}) | {row.floor:.1f} | {row.learngene_entropy:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
