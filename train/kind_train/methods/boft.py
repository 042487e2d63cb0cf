"""BOFT (https://arxiv.org/abs/2311.06243): rotations as a product of butterfly factors, by peft.

Without nvcc peft takes one factor in place of two, on a slow path.
"""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_core.costs.methods import BOFT_BLOCK, BOFT_FACTORS
from kind_train.methods.oft import Oft


class Boft(Oft):
    name, title = "boft", "BOFT"
    config_name = "BOFTConfig"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return {"boft_block_size": BOFT_BLOCK, "boft_n_butterfly_factor": BOFT_FACTORS}


METHOD = Boft()
