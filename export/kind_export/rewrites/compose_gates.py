"""Given: a gated model that knows only the asked classes, and the table of a sampler.
Result: a compact model in which each matrix holds the learngene's factors and the tailors of those classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kind_core.dit import Block, DivertedTransformer, KindDiT
from kind_core.diverted import DenseLinear
from kind_core.schedule import SamplerTable
from kind_core.text.pixart import KindPixArt
from kind_export.compact.model import CompactModel, Conditioning, Embedders, Factors, Matrix


@torch.no_grad()
def compose_gates(model: KindDiT, sampler: SamplerTable) -> CompactModel:
    """Split `model` into learngene and tailors; nothing is merged yet."""
    config = model.config
    labels = torch.cat([model.tailors.label_embeddings(), model.null_label_embedding[None]])
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    layers = [*(block.adaln for block in blocks), model.final.adaln]
    conditioning = Embedders(
        timestep_mlp=model.timestep_embedder,
        label_embeddings=frozen(labels).reshape(len(labels), -1, config.hidden_size),
        adaln=tuple((frozen(layer.weight), frozen(layer.bias)) for layer in layers),
        reads=config.read_embeddings,
    )
    return compose_trunk(model, sampler, conditioning)


def compose_trunk(model: KindDiT | KindPixArt, sampler: SamplerTable, conditioning: Conditioning) -> CompactModel:
    """What a model has around and in its blocks, whatever tells them what to draw."""
    config = model.config
    return CompactModel(
        config=config,
        sampler=sampler,
        conditioning=conditioning,
        blocks=tuple(_compose_block(model, index) for index in range(config.depth)),
        patch_weight=frozen(model.patch_embedding.weight),
        patch_bias=frozen(model.patch_embedding.bias),
        position_embedding=model.position_embedding,
        final_weight=frozen(model.final.linear.weight),
        final_bias=frozen(model.final.linear.bias),
        attention_scale=(config.hidden_size // config.num_heads) ** -0.5,
    )


def _compose_block(model: DivertedTransformer, index: int) -> dict[str, Matrix]:
    names = model.config.matrix_shapes
    return {name.split(".")[-1]: _compose_matrix(model, f"blocks.{index}.{name}") for name in names}


def _compose_matrix(model: DivertedTransformer, name: str) -> Matrix:
    layer = model.get_submodule(name)
    if isinstance(layer, DenseLinear):
        weight = frozen(layer.weight)
        return Matrix(learngene=weight, tailors=(), bias=frozen(layer.bias), rank=min(weight.shape))
    learngene = Factors(up=frozen(layer.U), scale=frozen(layer.s), down=frozen(layer.V).T.contiguous())
    bank = model.tailors
    tailors = []
    for row in bank.weight if bank.rank else ():
        U, s, V = bank.factors(row, name)
        tailors.append(Factors(up=frozen(U.T), scale=frozen(s), down=frozen(V)))
    return Matrix(learngene=learngene, tailors=tuple(tailors), bias=frozen(layer.bias), rank=learngene.rank + bank.rank)


def frozen(tensor: Tensor | nn.Module | None) -> Tensor:
    """A copy of a weight that no gradient reaches."""
    assert isinstance(tensor, Tensor), "a layer without a bias, or no diverted layer"
    return tensor.detach().clone(memory_format=torch.contiguous_format)
