"""Rewrites of the compact model, one file each; every one is exact unless its docstring says otherwise.

`rewrite` applies them in order; each says what it needs of the ones before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kind_core.dit import KindDiT
from kind_core.schedule import SamplerTable
from kind_export.compact import CompactModel, ModulationTable
from kind_export.rewrites.bake_conditioning import bake_conditioning
from kind_export.rewrites.choose_forms import choose_forms
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.rewrites.drop_sigma import drop_sigma
from kind_export.rewrites.fold_scales import fold_scales
from kind_export.rewrites.join_qkv import join_qkv
from kind_export.rewrites.merge_tailor import merge_tailor
from kind_export.rewrites.pad_ranks import pad_ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class RewriteOptions:
    """What a user may force."""

    baking: str = "auto"


def rewrite(model: KindDiT, sampler: SamplerTable, options: RewriteOptions) -> CompactModel:
    """Compose the gates of all classes of `model` and rewrite the result into its compact form."""
    compact = compose_gates(model, sampler)
    compact = drop_sigma(compact)
    compact = fold_scales(compact)
    compact = choose_forms(compact)
    compact = join_qkv(compact)
    compact = merge_tailor(compact)
    compact = pad_ranks(compact)
    return bake_conditioning(compact, options.baking)


def describe_rewrites(model: CompactModel) -> dict[str, Any]:
    """What was chosen, for the manifest and the report."""
    forms = {
        name: {
            "form": "dense" if matrix.is_dense else "factored",
            "shape": list(matrix.shape),
            "live_rank": None if matrix.is_dense else matrix.rank,
            "tailor": "merged" if matrix.gate is not None else "apart" if matrix.tailors else "none",
        }
        for name, matrix in model.blocks[0].items()
    }
    baked = isinstance(model.conditioning, ModulationTable)
    return {
        "conditioning": "modulation table" if baked else "conditioning table and adaLN layers",
        "matrices_of_a_block": forms,
    }
