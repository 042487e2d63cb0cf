"""Options of a training run: a preset or a YAML file, then flags. The finished options are written beside the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kind_core.errors import ConfigError

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides a run. `images` counts training images seen, not photos in the data set.

    The learning rate warms up over `warmup_images`, stays, and falls linearly to zero over the last `decay_fraction`.
    """

    data: str
    output: str
    preset: str = "sample"
    val_data: str | None = None
    val_fraction: float = 0.05
    classes: tuple[str, ...] = ()
    images: int = 250_000
    batch_size: int = 64
    learning_rate: float = 1e-4
    warmup_images: int = 0
    decay_fraction: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    label_dropout: float = 0.1
    flip: bool = True
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    strict: bool = False
    save_every: int = 20_000
    sample_every: int = 20_000

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "save_every", "sample_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("val_fraction", "decay_fraction", "label_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to below 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}, expected a positive number")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")

    @property
    def num_steps(self) -> int:
        return -(-self.images // self.batch_size)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimiser step `step`, from 0."""
        done = step * self.batch_size
        warm = min(1.0, (done + self.batch_size) / self.warmup_images) if self.warmup_images else 1.0
        left = (self.num_steps - step) / max(1.0, self.decay_fraction * self.num_steps)
        return self.learning_rate * min(warm, left if self.decay_fraction else 1.0, 1.0)

    def to_yaml(self) -> str:
        import yaml

        data = asdict(self) | {"classes": list(self.classes)}
        return str(yaml.safe_dump(data, sort_keys=False))


def load_options(path: Path | None, flags: Mapping[str, Any]) -> TrainConfig:
    """Options from a YAML file (if any) with `flags` over them; None flags count as not given."""
    options: dict[str, Any] = _read_yaml(path) if path is not None else {}
    options |= {name: value for name, value in flags.items() if value is not None and value != ()}
    known = {f.name for f in fields(TrainConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}, expected one of {', '.join(sorted(known))}")
    for name in ("data", "output"):
        if name not in options:
            raise ConfigError(f"no {name} given", f"add --{name} or `{name}:` in the YAML file")
    options["classes"] = tuple(options.get("classes", ()))
    try:
        return TrainConfig(**options)
    except TypeError as error:
        raise ConfigError(f"an option has the wrong type: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no YAML file at {path}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, expected `option: value` lines")
    return data
