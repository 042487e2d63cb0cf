"""Methods that peft has: its adapters in the six matrices of every block, merged by its own `merge()`."""

from __future__ import annotations

import warnings
from typing import Any

from kind_core.config import DiTConfig
from kind_core.costs.methods import BOFT_BLOCK, BOFT_FACTORS, adapter_rank, loha_rank, oft_blocks
from kind_core.dit import DivertedTransformer
from kind_core.errors import TargetError
from kind_train.methods.method import SMALL_RATE, AddedMethod, freeze, replace_layer

_MATRICES = ["q", "k", "v", "o", "up", "down"]


class PeftMethod(AddedMethod):
    """A method whose adapter `settings` describes, a config of `config_name` of peft."""

    config_name = "LoraConfig"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        """What the config of peft is made with, but for the matrices."""
        raise NotImplementedError

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        peft = import_peft(self.name)
        freeze(model)
        settings = self.settings(plan, model.config.num_classes)
        config = getattr(peft, self.config_name)(target_modules=_MATRICES, **settings)
        before = {id(parameter) for parameter in model.parameters()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that it rounds, and of the slow path without nvcc
            peft.inject_adapter_in_model(config, model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(id(parameter) not in before or name.startswith("tailors."))
        for name, _, _ in model.config.matrix_names():
            # PiSSA writes what is left of the weight back as a new parameter
            model.get_submodule(f"{name}.base_layer").requires_grad_(False)

    def fold(self, model: DivertedTransformer) -> DiTConfig:
        for name, _, _ in model.config.matrix_names():
            layer: Any = model.get_submodule(name)
            layer.merge()
            replace_layer(model, name, layer.get_base_layer())
        return model.config


def import_peft(method: str) -> Any:
    """The package; raises TargetError where it is missing."""
    try:
        import peft
    except ImportError as error:
        raise TargetError(
            f"method {method!r} needs peft, which cannot be imported: {' '.join(str(error).split())}",
            "pip install 'kind-diffusion[benchmark]'",
        ) from error
    return peft


class Lora(PeftMethod):
    """https://arxiv.org/abs/2106.09685, at the rank of all tailors."""

    name, title = "lora", "LoRA"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        rank = adapter_rank(plan, classes)
        return {"r": rank, "lora_alpha": rank}


class Pissa(Lora):
    """https://arxiv.org/abs/2404.02948: LoRA that starts from the largest singular triplets."""

    name, title = "pissa", "PiSSA"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return super().settings(plan, classes) | {"init_lora_weights": "pissa"}


class Dora(Lora):
    """https://arxiv.org/abs/2402.09353: LoRA of the direction beside a trained length of each output."""

    name, title = "dora", "DoRA"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return super().settings(plan, classes) | {"use_dora": True}


class Loha(PeftMethod):
    """https://arxiv.org/abs/2108.06098: the product of two low-rank matrices, element by element."""

    name, title = "loha", "LoHa"
    config_name = "LoHaConfig"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        rank = loha_rank(plan, classes)
        return {"r": rank, "alpha": rank}


class Oft(PeftMethod):
    """https://arxiv.org/abs/2306.07280: inputs rotated block by block.

    peft moves the number of blocks to a divisor of the inputs (7 to 8 of 768); the paper's count has ceil(in / blocks).
    """

    name, title = "oft", "OFT"
    config_name = "OFTConfig"
    rate = SMALL_RATE

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return {"r": min(oft_blocks(classes), plan.hidden_size // 2), "oft_block_size": 0}


class Boft(Oft):
    """https://arxiv.org/abs/2311.06243: rotations as a product of butterfly factors.

    Without nvcc peft takes one factor in place of two, on a slow path.
    """

    name, title = "boft", "BOFT"
    config_name = "BOFTConfig"

    def settings(self, plan: DiTConfig, classes: int) -> dict[str, object]:
        return {"boft_block_size": BOFT_BLOCK, "boft_n_butterfly_factor": BOFT_FACTORS}
