"""Methods that peft has: its adapters in the six matrices of every block, merged by its own `merge()`."""

from __future__ import annotations

import warnings
from typing import Any

from kind_core.config import DiTConfig
from kind_core.dit import DivertedTransformer
from kind_core.errors import TargetError
from kind_train.methods.method import AddedMethod, freeze, replace_layer

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
