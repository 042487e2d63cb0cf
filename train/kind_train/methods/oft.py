"""OFT (https://arxiv.org/abs/2306.07280): inputs rotated block by block, by peft.

peft moves the number of blocks to a divisor of the inputs (7 to 8 of 768); the paper's count has ceil(in / blocks).
"""

from __future__ import annotations

from kind_core.config import DiTConfig
from kind_core.costs.methods import oft_blocks
from kind_train.methods.shared.peft_method import PeftMethod

_RATE = 1e-4  # table 7


class Oft(PeftMethod):
    name, title = "oft", "OFT"
    config_name = "OFTConfig"

    def learning_rate(self, base: DiTConfig) -> float:
        return _RATE

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return {"r": min(oft_blocks(classes), plan.hidden_size // 2), "oft_block_size": 0}


METHOD = Oft()
