"""What `kind-train benchmark` is asked for. No torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from kind_core.config.checks import require_positive, require_seed
from kind_core.errors import ConfigError
from kind_train.evaluation import require_drawing

_OF_FEW_SHOT = (
    *("output", "scale", "methods", "data", "base_data", "size", "images", "batch_size"),
    *("episodes", "seeds", "device", "cell", "resume"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOptions:
    """The options of the command by their names; None and an empty tuple are not given.

    What is of suites that train alone has its default here: one that draws refuses it.
    """

    output: Path
    scale: str = "small"
    methods: tuple[str, ...] = ()
    checkpoint: Path | None = None
    sample: str | None = None
    dense: Path | None = None
    data: str | None = None
    val_data: str | None = None
    task_size: int | None = None
    tasks: Path | None = None
    base_data: str | None = None
    preset: str | None = None
    size: int | None = None
    real: Path | None = None
    images: int | None = None
    base_images: int | None = None
    batch_size: int | None = None
    count: int | None = None
    episodes: int | None = None
    seeds: tuple[int, ...] = ()
    classifier: Path | None = None
    inception_weights: str | None = None
    dinov2: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    device: str = "cpu"
    cell: str | None = None
    resume: bool = False

    def choose_checkpoint(self) -> Path | None:
        """The checkpoint, or that of the sample, if one was given; raises ConfigError for both."""
        if self.sample is None:
            return self.checkpoint
        if self.checkpoint is not None:
            raise ConfigError("expected one of --checkpoint and --sample", "leave one out")
        from kind_samples import sample_checkpoint

        return sample_checkpoint(self.sample)

    @property
    def goes_on(self) -> bool:
        """Whether the folder may be there: cells are made by many commands at a time, none of which is the first."""
        return self.resume or self.cell is not None

    def require_numbers(self) -> None:
        """Raise ConfigError for numbers that no suite takes, before one trains."""
        require_drawing(self.seed, self.guidance)
        for name, value in (("count", self.count), ("steps", self.steps)):
            if value is not None:
                require_positive(name, value)
        for seed in self.seeds:
            require_seed(seed)
        if len({*self.seeds}) < len(self.seeds):
            raise ConfigError(f"seeds are {', '.join(map(str, self.seeds))}, expected each of them once")

    def require_few_shot(self) -> None:
        """Raise ConfigError for what few-shot does not take, and for photos that it lacks."""
        for one in fields(self):
            if one.name not in _OF_FEW_SHOT and getattr(self, one.name) != one.default:
                raise ConfigError(
                    f"--{one.name.replace('_', '-')} is of other suites: few-shot draws nothing and begins with photos",
                    "leave it out",
                )
        for name, what in (("base_data", "that networks are pre-trained on"), ("data", "of the classes of tasks")):
            if getattr(self, name) is None:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"expected {option}: photos {what}", f"give {option} photos/")
