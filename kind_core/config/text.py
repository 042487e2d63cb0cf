"""How a model reads captions."""

from __future__ import annotations

from dataclasses import dataclass

from kind_core.config.checks import require_positive
from kind_core.config.dit import DiTConfig
from kind_core.errors import ConfigError

_MOST_CHANNELS = 65_536
_MOST_TOKENS = 4096
_LARGEST_SIDE = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """What makes a DiT a PixArt: in every block it attends to the embedded words of a caption.

    `channels` are those of the text encoder, `tokens` how many it gives of a caption. With `is_projected` they go
    through two layers first. `interpolation_scale` is that of the position embedding. `picture_side`, in pixels, is
    there where the model is also told how large the picture is that it draws.
    """

    channels: int
    tokens: int
    is_projected: bool = True
    interpolation_scale: int = 1
    picture_side: int | None = None

    def __post_init__(self) -> None:
        require_positive("text channels", self.channels, _MOST_CHANNELS)
        require_positive("text tokens", self.tokens, _MOST_TOKENS)
        require_positive("interpolation_scale", self.interpolation_scale, _LARGEST_SIDE)
        if self.picture_side is not None:
            require_positive("picture_side", self.picture_side, _LARGEST_SIDE)
        if not isinstance(self.is_projected, bool):
            raise ConfigError(f"is_projected is {self.is_projected!r}, expected true or false")

    def require_trunk(self, dit: DiTConfig) -> None:
        """Raise ConfigError where the transformer around the captions has what a PixArt has not."""
        for name in ("block_embedders", "end_blocks"):
            if getattr(dit, name):
                raise ConfigError(f"{name} is {getattr(dit, name)}, which a model of captions does not have")
        if self.picture_side is not None and dit.hidden_size % 3:
            raise ConfigError(
                f"hidden_size is {dit.hidden_size}, expected a multiple of 3 where the size of the picture is told"
            )
