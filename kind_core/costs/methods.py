"""What each way of adapting a DiT trains and costs, counted as the paper's table 2 does.

A method is counted for one task of so many new classes on a model of the shape `config` (a decomposed one, whose
tailors every other method is given the budget of): trained parameters with the label embeddings of those classes, and
FLOPs of one pass with what the method adds still beside the weights. Formulas reproduce the printed figures; those of
DoRA and LoHa show that they were counted on peft's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, isqrt

from kind_core.config import DiTConfig
from kind_core.errors import ConfigError
from kind_core.flops import count_flops, count_live_rank, count_lora_flops, count_parameters, count_trainable_parameters

# OFT's blocks a matrix over the classes of a task (table 7); they are one at least.
_OFT_BLOCKS = 147
BOFT_BLOCK, BOFT_FACTORS = 4, 2
Counter = Callable[[DiTConfig, int], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodCost:
    """How a method is counted: `trained(config, classes)` parameters and `flops(config, classes)` of one pass."""

    trained: Counter
    flops: Counter


def adapter_rank(config: DiTConfig, classes: int) -> int:
    """Rank of LoRA, PiSSA and DoRA: that of the tailors of all classes."""
    return config.tailor_rank * classes


def loha_rank(config: DiTConfig, classes: int) -> int:
    """LoHa has two pairs of factors a matrix, so half the rank, one at least."""
    return max(1, adapter_rank(config, classes) // 2)


def oft_blocks(classes: int) -> int:
    """Blocks into which OFT parts the inputs of a matrix."""
    return max(1, _OFT_BLOCKS // classes)


def fact_rank(config: DiTConfig, classes: int) -> int:
    """FacT-TT's k: the largest with which 2 d k + 12 k^2 L stays within what the tailors of the task train."""
    budget = int(count_trainable_parameters(config, classes) - _labels(config, classes))
    square = sum(out * into for out, into in config.matrix_shapes.values()) // config.hidden_size**2 * config.depth
    d = config.hidden_size
    return max(1, min(d, (isqrt(d * d + square * budget) - d) // square))


def dense_twin(config: DiTConfig, classes: int | None = None) -> DiTConfig:
    """The ordinary DiT of the same shape; with `classes`, of so many."""
    count = config.num_classes if classes is None else classes
    return replace(config, learngene_rank=None, tailor_rank=0, tailor_ranks=None, num_classes=count)


def find_cost(method: str) -> MethodCost:
    """The counters of a method; raises ConfigError naming those there are."""
    if method not in METHOD_COSTS:
        raise ConfigError(f"no counter for method {method!r}, expected one of {', '.join(METHOD_COSTS)}")
    return METHOD_COSTS[method]


def _matrices(config: DiTConfig) -> Iterator[tuple[int, int]]:
    """(out, in) of every block matrix."""
    return ((out, into) for _, out, into in config.matrix_names())


def _labels(config: DiTConfig, classes: int) -> int:
    return classes * config.num_embedders * config.hidden_size


def _trained_all(config: DiTConfig, classes: int) -> float:
    return count_parameters(dense_twin(config, classes)).total


def _trained_lora(config: DiTConfig, classes: int) -> float:
    rank = adapter_rank(config, classes)
    return sum(rank * (out + into) for out, into in _matrices(config)) + _labels(config, classes)


def _trained_dora(config: DiTConfig, classes: int) -> float:
    return _trained_lora(config, classes) + sum(out for out, _ in _matrices(config))


def _trained_loha(config: DiTConfig, classes: int) -> float:
    rank = loha_rank(config, classes)
    return sum(2 * rank * (out + into) for out, into in _matrices(config)) + _labels(config, classes)


def _trained_oft(config: DiTConfig, classes: int) -> float:
    blocks = oft_blocks(classes)
    sides = (ceil(into / blocks) for _, into in _matrices(config))
    return sum(blocks * side * (side - 1) / 2 for side in sides) + _labels(config, classes)


def _trained_boft(config: DiTConfig, classes: int) -> float:
    """Butterfly factors of blocks, and a scale for every output (peft)."""
    factors = sum(BOFT_FACTORS * into * BOFT_BLOCK + out for out, into in _matrices(config))
    return factors + _labels(config, classes)


def _trained_svdiff(config: DiTConfig, classes: int) -> float:
    return sum(min(shape) for shape in _matrices(config)) + _labels(config, classes)


def _trained_fact(config: DiTConfig, classes: int) -> float:
    """U and V of all matrices, and for each one the core between them, of d x d pieces k x k."""
    rank, d = fact_rank(config, classes), config.hidden_size
    return (
        2 * d * rank + sum(rank**2 * out * into // d**2 for out, into in _matrices(config)) + _labels(config, classes)
    )


def _dense_flops(config: DiTConfig, classes: int) -> float:
    return count_flops(dense_twin(config)).total


def _kind_flops(config: DiTConfig, classes: int) -> float:
    return count_flops(config, live_rank=count_live_rank(config, classes)).total


def _lora_flops(config: DiTConfig, classes: int) -> float:
    return count_lora_flops(config, adapter_rank(config, classes)).total


def _loha_flops(config: DiTConfig, classes: int) -> float:
    """The delta runs as a whole matrix."""
    return _dense_flops(config, classes) + config.num_tokens * sum(2 * out * into for out, into in _matrices(config))


def _oft_flops(config: DiTConfig, classes: int) -> float:
    """The block-diagonal rotation runs as a whole matrix on every input."""
    return _dense_flops(config, classes) + config.num_tokens * sum(2 * into**2 for _, into in _matrices(config))


def _grown_flops(config: DiTConfig, classes: int) -> float:
    """A learngene and components of the budget of all tailors, all of them open."""
    return count_flops(config, live_rank=(config.learngene_rank or 0) + adapter_rank(config, classes)).total


def _dora_flops(config: DiTConfig, classes: int) -> float:
    """LoRA, the base product a second time, and B A as a matrix from A and B applied to an identity."""
    rank = adapter_rank(config, classes)
    again = config.num_tokens * sum(2 * out * into for out, into in _matrices(config))
    return _lora_flops(config, classes) + again + sum(2 * rank * into * (into + out) for out, into in _matrices(config))


def _fact_flops(config: DiTConfig, classes: int) -> float:
    """V, the core and U, on each d-wide piece of input and output."""
    rank, d, tokens = fact_rank(config, classes), config.hidden_size, config.num_tokens
    pieces = ((out // d, into // d) for out, into in _matrices(config))
    added = sum(2 * d * rank * (out + into) + 2 * rank**2 * out * into for out, into in pieces)
    return _dense_flops(config, classes) + tokens * added


METHOD_COSTS: Mapping[str, MethodCost] = {
    "tailors": MethodCost(trained=count_trainable_parameters, flops=_kind_flops),
    "full-ft": MethodCost(trained=_trained_all, flops=_dense_flops),
    "lora": MethodCost(trained=_trained_lora, flops=_lora_flops),
    "pissa": MethodCost(trained=_trained_lora, flops=_lora_flops),
    "dora": MethodCost(trained=_trained_dora, flops=_dora_flops),
    "loha": MethodCost(trained=_trained_loha, flops=_loha_flops),
    "oft": MethodCost(trained=_trained_oft, flops=_oft_flops),
    "boft": MethodCost(trained=_trained_boft, flops=_oft_flops),
    "svdiff": MethodCost(trained=_trained_svdiff, flops=_dense_flops),
    "fact-tt": MethodCost(trained=_trained_fact, flops=_fact_flops),
    "heur-lg": MethodCost(trained=_trained_all, flops=_dense_flops),
    "auto-lg": MethodCost(trained=_trained_all, flops=_dense_flops),
    "svd-lora": MethodCost(trained=_trained_lora, flops=_grown_flops),
    "learngene-lora": MethodCost(trained=_trained_lora, flops=_grown_flops),
    "open-tailors": MethodCost(trained=count_trainable_parameters, flops=_grown_flops),
}
