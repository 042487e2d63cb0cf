"""How far the weights of a checkpoint were trained, as the run that made them measured it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kind_core.config.checks import require_number, require_positive

# A network that leaves more than this of the error of a guess without shapes draws none.
_BARELY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecord:
    """`images` seen, the loss of held-out photos, and what that of the mean image is at the same noise.

    The mean image's is the loss of the best guess, pixel by pixel, that knows the mean of the photos and how far they
    lie from it, but no shapes: see `kind_train.run.mean_image`. None where nothing was held out.
    """

    images: int
    held_out_loss: float | None = None
    mean_image_loss: float | None = None

    def __post_init__(self) -> None:
        require_positive("training images", self.images)
        if self.held_out_loss is not None:  # below 0 where pictures keep away from photos of other classes
            require_number("training held_out_loss", self.held_out_loss)
        if self.mean_image_loss is not None:
            require_number("training mean_image_loss", self.mean_image_loss, above=0)

    @property
    def share(self) -> float | None:
        """The held-out loss as a share of the mean image's."""
        if self.held_out_loss is None or self.mean_image_loss is None:
            return None
        return self.held_out_loss / self.mean_image_loss

    @property
    def is_barely_trained(self) -> bool:
        return self.share is not None and self.share > _BARELY

    def weaker(self, other: TrainingRecord | None) -> TrainingRecord:
        """Of two the one that was trained less far, as both say."""
        return other if other is not None and (other.share or 0) > (self.share or 0) else self

    def to_dict(self) -> dict[str, object]:
        """As `config.json` and a bundle's manifest hold it."""
        return {name: value for name, value in asdict(self).items() if value is not None}
