"""Counters of the compared methods, against formulas of the paper's shape and on small models."""

from __future__ import annotations

import pytest

from kind_core.config import preset
from kind_core.costs.methods import METHOD_COSTS, dense_twin, fact_rank, find_cost, oft_blocks
from kind_core.errors import ConfigError
from kind_core.flops import count_flops
from tiny import tiny_config

D, L, T = 768, 12, 256  # DiT-B/2


@pytest.mark.parametrize("classes", [7, 26])
def test_the_formulas_are_those_of_a_dit_with_four_fold_mlp(classes: int) -> None:
    config, rank, labels = preset("kind-b/2")[0], 3 * classes, classes * D
    trained = {name: cost.trained(config, classes) for name, cost in METHOD_COSTS.items()}
    assert trained["lora"] == trained["pissa"] == 18 * D * rank * L + labels
    assert trained["dora"] == trained["lora"] + 9 * D * L
    assert trained["loha"] == 36 * D * (rank // 2) * L + labels
    assert trained["svdiff"] == 6 * D * L + labels
    flops = {name: cost.flops(config, classes) - count_flops(dense_twin(config)).total
             for name, cost in METHOD_COSTS.items()}  # fmt: skip
    assert flops["lora"] == flops["pissa"] == 36 * T * D * rank * L
    assert flops["loha"] == 24 * T * D**2 * L
    assert flops["oft"] == 42 * T * D**2 * L
    assert flops["dora"] == 24 * T * D**2 * L + 36 * T * D * rank * L + 66 * D**2 * rank * L
    assert flops["svdiff"] == flops["full-ft"] == flops["heur-lg"] == flops["auto-lg"] == 0


def test_fact_takes_the_largest_rank_within_the_tailors_budget() -> None:
    config = preset("kind-b/2")[0]
    trained, budget = (METHOD_COSTS[name].trained(config, 26) for name in ("fact-tt", "tailors"))
    rank = fact_rank(config, 26)
    assert trained == 2 * D * rank + 12 * rank**2 * L + 26 * D
    assert trained <= budget < 2 * D * (rank + 1) + 12 * (rank + 1) ** 2 * L + 26 * D


def test_small_models_have_blocks_and_ranks_of_one_at_least() -> None:
    assert oft_blocks(147) == oft_blocks(500) == 1
    assert oft_blocks(7) == 21
    assert METHOD_COSTS["loha"].trained(tiny_config(tailor_rank=1), 1) > 0
    assert fact_rank(tiny_config(tailor_rank=1), 1) >= 1


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no counter for method 'lorra', expected one of tailors, .*svdiff"):
        find_cost("lorra")
