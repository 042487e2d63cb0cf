"""What a run says of itself on the way."""

from __future__ import annotations

from dataclasses import dataclass

from kind_train.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a progress display is told: after each step on a CPU, after every twentieth on a GPU."""

    step: int
    num_steps: int
    images: int
    loss: float
    images_per_second: float
    seconds_left: float
    held_out_loss: float | None
    learning_rate: float
    gradient_norm: float

    def metrics(self) -> dict[str, float]:
        """The line of metrics of what was trained since the last one; what is held out has lines of its own."""
        return {
            "step": self.step,
            "images": self.images,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "images_per_second": round(self.images_per_second, 2),
        }


def note_progress(
    config: TrainConfig,
    step: int,
    *,
    loss: float,
    seconds: float,
    steps: int,
    held_out_loss: float | None,
    gradient_norm: float,
) -> Progress:
    """What there is to say after `step` steps, the last `steps` of which took so many seconds."""
    speed = steps * config.batch_size / seconds
    return Progress(
        step=step,
        num_steps=config.num_steps,
        images=step * config.batch_size,
        loss=loss,
        images_per_second=speed,
        seconds_left=(config.num_steps - step) * config.batch_size / speed,
        held_out_loss=held_out_loss,
        learning_rate=config.learning_rate_at(step - 1),
        gradient_norm=gradient_norm,
    )


def is_due(config: TrainConfig, step: int, every_images: int) -> bool:
    """Whether what is done every so many images is done after `step` steps."""
    size = config.batch_size
    return step * size // every_images > (step - 1) * size // every_images
