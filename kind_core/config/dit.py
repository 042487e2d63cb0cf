"""Architecture of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kind_core.config.checks import is_whole, require_number, require_positive
from kind_core.errors import ConfigError

NORM_EPS = 1e-6
TIMESTEP_FREQUENCIES = 256  # sines and cosines of the timestep embedder, as in every DiT
# Far beyond any DiT: what a damaged config.json asks for is refused before it is allocated.
_LARGEST = {
    "sample_size": 4096,
    "patch_size": 4096,
    "in_channels": 1024,
    "hidden_size": 16_384,
    "depth": 4096,
    "num_heads": 1024,
    "num_classes": 100_000,
}
_MOST_TOKENS = 65_536
_LARGEST_MLP_RATIO = 64
_MOST_TIMESTEPS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Architecture of a DiT whose block matrices are held as `U diag(s) V^T`.

    `sample_size` is the side of the latents (of the image, in pixel space). `learngene_rank` is the paper's N_G and
    `tailor_rank` its N_T; `learngene_rank=None` is the ordinary dense DiT. `tailor_ranks` overrides `tailor_rank`
    class by class. With `learn_sigma` the network has twice the output channels; samplers read the first half.
    `mlp_norm_eps` is the epsilon of the norm before the MLP, which some converted models have larger than the others.
    With `block_embedders` every block has a timestep embedder and label embeddings of its own, as a DiT trained in
    diffusers has; the final layer is conditioned by those of the first block.
    The last `end_blocks` blocks and the final layer of a distilled model are conditioned by where a step ends, the
    others by where it begins (https://arxiv.org/abs/2510.24474).
    """

    sample_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    depth: int
    num_heads: int
    num_classes: int
    learngene_rank: int | None
    tailor_rank: int = 0
    tailor_ranks: tuple[int, ...] | None = None
    mlp_ratio: float = 4.0
    learn_sigma: bool = False
    mlp_norm_eps: float = NORM_EPS
    block_embedders: bool = False
    end_blocks: int = 0

    def __post_init__(self) -> None:
        for name, most in _LARGEST.items():
            require_positive(name, getattr(self, name), most)
        if self.sample_size % self.patch_size:
            raise ConfigError(f"sample_size {self.sample_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be a multiple of 4 and of num_heads {self.num_heads}"
            )
        if self.learngene_rank is not None:
            require_positive("learngene_rank", self.learngene_rank, _LARGEST["hidden_size"])
        if self.num_tokens > _MOST_TOKENS:
            raise ConfigError(
                f"sample_size {self.sample_size} in patches of {self.patch_size} are {self.num_tokens} tokens, "
                f"expected {_MOST_TOKENS} at most"
            )
        if self.tailor_ranks is not None and len(self.tailor_ranks) != self.num_classes:
            raise ConfigError(
                f"tailor_ranks has {len(self.tailor_ranks)} entries, "
                f"expected one for each of {self.num_classes} classes"
            )
        for rank in (self.tailor_rank, *self.ranks):
            if not is_whole(rank) or not 0 <= rank <= _LARGEST["hidden_size"]:
                raise ConfigError(
                    f"tailor rank is {rank!r}, expected a whole number from 0 to {_LARGEST['hidden_size']}"
                )
        require_number("mlp_ratio", self.mlp_ratio, above=0)
        if self.mlp_ratio > _LARGEST_MLP_RATIO:
            raise ConfigError(f"mlp_ratio is {self.mlp_ratio:g}, expected {_LARGEST_MLP_RATIO} at most")
        if self.mlp_size < 1:
            raise ConfigError(f"mlp_ratio is {self.mlp_ratio:g}, which leaves the MLP of {self.hidden_size} no unit")
        require_number("mlp_norm_eps", self.mlp_norm_eps, above=0)
        for name in ("learn_sigma", "block_embedders"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected true or false")
        if not is_whole(self.end_blocks) or not 0 <= self.end_blocks < self.depth:
            raise ConfigError(f"end_blocks is {self.end_blocks!r}, expected 0 to below the depth {self.depth}")
        if self.end_blocks and self.block_embedders:
            raise ConfigError(f"end_blocks is {self.end_blocks}, but every block has an embedder of its own")
        if self.is_dense and max(self.ranks):
            raise ConfigError("a dense model (learngene_rank null) has no tailors", "set tailor_rank to 0")

    @property
    def is_dense(self) -> bool:
        return self.learngene_rank is None

    @property
    def ranks(self) -> tuple[int, ...]:
        """Tailor rank of each class."""
        return self.tailor_ranks if self.tailor_ranks is not None else (self.tailor_rank,) * self.num_classes

    @property
    def num_tokens(self) -> int:
        return (self.sample_size // self.patch_size) ** 2

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def num_embedders(self) -> int:
        """Timestep embedders, and embeddings of a label."""
        return self.depth if self.block_embedders else 1

    @property
    def read_embeddings(self) -> tuple[int, ...]:
        """Which embedding each block and the final layer are conditioned by: the first, the end's, or their own."""
        if self.block_embedders:
            return (*range(self.depth), 0)
        begin = self.depth - self.end_blocks if self.end_blocks else self.depth + 1
        return (0,) * begin + (1,) * (self.depth + 1 - begin)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of the embedding of one label: (hidden,), or (depth, hidden) where every block has its own."""
        return (self.depth, self.hidden_size) if self.block_embedders else (self.hidden_size,)

    @property
    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of the six diverted matrices of a block, by their name inside the block."""
        d, m = self.hidden_size, self.mlp_size
        square = {f"attn.{name}": (d, d) for name in ("q", "k", "v", "o")}
        return {**square, "mlp.up": (m, d), "mlp.down": (d, m)}

    def to_dict(self) -> dict[str, object]:
        """As `config.json` holds it. Fields that came later are left out at their default: older programs read on."""
        later = {"mlp_norm_eps": NORM_EPS, "block_embedders": False, "end_blocks": 0}
        return {name: value for name, value in asdict(self).items() if name not in later or later[name] != value}

    def matrix_names(self) -> list[tuple[str, int, int]]:
        """(name, out, in) of every diverted matrix of the model, in order."""
        return [
            (f"blocks.{i}.{name}", out, into)
            for i in range(self.depth)
            for name, (out, into) in self.matrix_shapes.items()
        ]
