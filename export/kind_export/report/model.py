"""What a report says of the model: its numbers, the form of each matrix, and its FLOPs."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from kind_core.config import DiTConfig
from kind_core.flops import Convention, count_flops, count_parameters
from kind_export.compact.model import CompactModel, ConditioningTable, Factors, LowRankTable, Matrix
from kind_export.compact.step import StepProgram
from kind_runtimes.documents.reports.model import MatrixEntry, ModelEntry, Products, Twins


def describe_model(config: DiTConfig, compact: CompactModel) -> ModelEntry:
    dense = replace(config, learngene_rank=None, tailor_rank=0, tailor_ranks=None)  # the same DiT, not decomposed
    program = StepProgram(compact)
    parameters = count_parameters(config)
    return {
        "num_tokens": config.num_tokens,
        "live_rank": None if config.learngene_rank is None else config.learngene_rank + max(config.ranks),
        "parameters": {
            "dense_twin": round(count_parameters(dense).total),
            "composed": round(parameters.total),
            "stored_in_step": _count_numbers(program),
        },
        "conditioning": {
            "stored": _count_numbers(program.conditioner),
            "replaces": round(parameters.timestep_embedder + parameters.label_embedding + parameters.adaln),
        },
        "matrices_of_a_block": {name: _describe_matrix(name, m, config) for name, m in compact.blocks[0].items()},
        "flops_per_pass": {"paper": _count_twins(dense, config, "paper"), "full": _count_twins(dense, config, "full")},
        "flops_per_step_executed": count_step_flops(compact),
    }


def _count_twins(dense: DiTConfig, config: DiTConfig, convention: Convention) -> Twins:
    return {
        "dense_twin": round(count_flops(dense, convention=convention).total),
        "composed": round(count_flops(config, convention=convention).total),
    }


def _count_numbers(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))


def _describe_matrix(name: str, matrix: Matrix, config: DiTConfig) -> MatrixEntry:
    """The form and, per token, the multiplications that it was chosen by: null where the model is not decomposed."""
    joined = 3 if name == "qkv" else 1  # the choice was made for each before they were joined
    out_features, in_features = matrix.shape[0] // joined, matrix.shape[1]
    costs: Products | None = None
    if config.learngene_rank is not None:
        # the tailor of a single class rides along in the factors, see choose_forms
        learngene_rank = matrix.rank - max(config.ranks)
        tailor_rank = max(config.ranks) if config.num_classes == 1 else 0
        thin, rank = in_features + out_features, learngene_rank + tailor_rank
        costs = {"rank": rank, "factored": rank * thin, "dense": out_features * in_features + tailor_rank * thin}
    return {
        "form": "dense" if matrix.is_dense else "factored",
        "joined": joined,
        "shape": [out_features, in_features],
        "live_rank": None if config.learngene_rank is None else matrix.rank,
        "products_per_token": costs,
    }


def passes_per_step(*, takes_guidance: bool) -> int:
    """Guidance: the class and the null half."""
    return 2 if takes_guidance else 1


def count_step_flops(model: CompactModel) -> int:
    """2 x multiplications of linear layers and attention products that one step runs, both halves where it has two."""
    config, halves = model.config, passes_per_step(takes_guidance=model.sampler.takes_guidance)
    tokens = config.num_tokens
    block = sum(_matrix_products(model, name, m) for name, m in model.blocks[0].items()) * tokens * halves
    attention = 2 * tokens * tokens * config.hidden_size * halves
    patch = model.patch_weight.numel() * tokens  # both halves start from the same tokens
    final = model.final_weight.numel() * tokens * halves
    baked = model.conditioning
    adaln = baked.weight.numel() * halves if isinstance(baked, ConditioningTable) else 0
    if isinstance(baked, LowRankTable):
        adaln = baked.rank * baked.null[0].numel()
    return 2 * (config.depth * (block + attention) + patch + final + adaln)


def _matrix_products(model: CompactModel, name: str, matrix: Matrix) -> int:
    out_features, in_features = matrix.shape
    joined = 3 if name == "qkv" else 1
    tailor_rank = matrix.tailors[0].rank if matrix.tailors else (model.pack_rank or 0) * joined
    # as a constant the tailor of a joined matrix is block-diagonal on the way up; as a row it is three matrices
    blocks = joined if model.num_classes > 1 or model.pack_rank else 1
    apart = tailor_rank * (in_features + out_features // blocks)
    if isinstance(matrix.learngene, Factors):
        rank = matrix.rank - (tailor_rank if matrix.gate is None else 0)
        return rank * (out_features + in_features) + apart
    return out_features * in_features + apart
