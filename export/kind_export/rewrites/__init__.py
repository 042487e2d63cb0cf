"""Rewrites of the compact model, one file each; every one is exact unless its docstring says otherwise.

`PASSES` is their order; each says what it needs of the ones before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kind_core.dit import KindDiT
from kind_core.schedule import SamplerTable
from kind_core.text.pixart import KindPixArt
from kind_export.compact.model import CompactModel, LowRankTable, Matrix, ModulationTable
from kind_export.request import ExportRequest
from kind_export.rewrites.bake_conditioning import bake_conditioning
from kind_export.rewrites.choose_forms import choose_forms
from kind_export.rewrites.compose_captions import compose_captions
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.rewrites.detach_classes import DetachedClass, detach_classes
from kind_export.rewrites.drop_null import drop_null
from kind_export.rewrites.drop_sigma import drop_sigma
from kind_export.rewrites.factor_modulations import MIN_ERROR_DB, factor_modulations, table_error_db
from kind_export.rewrites.fold_scales import fold_scales
from kind_export.rewrites.join_qkv import join_qkv
from kind_export.rewrites.merge_tailor import merge_tailor
from kind_export.rewrites.truncate_ranks import truncate_ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class RewriteOptions:
    """What a user or a plan may force. The two limits of rank are not exact and off by default."""

    baking: str = "auto"
    max_rank: int | None = None
    energy: float | None = None
    table_error_db: float = MIN_ERROR_DB
    forms: str = "auto"

    @classmethod
    def of(cls, request: ExportRequest) -> RewriteOptions:
        """What a request asks for."""
        return cls(
            baking=request.baking,
            max_rank=request.max_rank,
            energy=request.energy,
            table_error_db=table_error_db(request.precision),
            forms=request.forms,
        )


Pass = Callable[[CompactModel, RewriteOptions], CompactModel]

# What a model goes through in this order, by the name of each; one says in its file what it needs of those before.
_FIRST: dict[str, Pass] = {
    "drop_sigma": lambda model, options: drop_sigma(model),
    "fold_scales": lambda model, options: fold_scales(model),
    "truncate_ranks": lambda model, options: truncate_ranks(model, options.max_rank, options.energy),
}
_MATRICES: dict[str, Pass] = {
    "choose_forms": lambda model, options: choose_forms(model, options.forms),
    "join_qkv": lambda model, options: join_qkv(model),
}
PASSES: dict[str, Pass] = {
    **_FIRST,
    **_MATRICES,
    "merge_tailor": lambda model, options: merge_tailor(model),
    "bake_conditioning": lambda model, options: bake_conditioning(model, options.baking),
    "drop_null": lambda model, options: drop_null(model),
    # where there is a null half and nobody asked for the layers themselves
    "factor_modulations": lambda model, options: (
        factor_modulations(model, options.table_error_db)
        if model.sampler.takes_guidance and options.baking != "off"
        else model
    ),
}
# Of a base, before its classes are taken off, which needs the table of conditioning; the forms of matrices come after.
BASE_PASSES: dict[str, Pass] = {**_FIRST, "bake_conditioning": lambda model, options: bake_conditioning(model, "on")}
# Of a model of captions, whose conditioning is a table from the start.
CAPTION_PASSES: dict[str, Pass] = {name: one for name, one in PASSES.items() if name != "bake_conditioning"}


def rewrite(model: KindDiT, sampler: SamplerTable, options: RewriteOptions) -> CompactModel:
    """Compose the gates of all classes of `model` and rewrite the result into its compact form."""
    return run_passes(PASSES, compose_gates(model, sampler), options)


def rewrite_captions(model: KindPixArt, sampler: SamplerTable, options: RewriteOptions) -> CompactModel:
    """The same of a model of captions."""
    return run_passes(CAPTION_PASSES, compose_captions(model, sampler), options)


def rewrite_base(
    model: KindDiT,
    sampler: SamplerTable,
    tailor_rank: int,
    table_rank: int | None = None,
    options: RewriteOptions = RewriteOptions(),
) -> tuple[CompactModel, tuple[DetachedClass, ...]]:
    """The base that classes attach to at run time, and those of `model`; ranks are `detach_classes`'s."""
    compact = run_passes(BASE_PASSES, compose_gates(model, sampler), options)
    compact, classes = detach_classes(compact, tailor_rank, table_rank)
    return run_passes(_MATRICES, compact, options), classes


def run_passes(passes: Mapping[str, Pass], model: CompactModel, options: RewriteOptions) -> CompactModel:
    """The model after each pass in turn."""
    for one in passes.values():
        model = one(model, options)
    return model


def describe_rewrites(model: CompactModel) -> dict[str, object]:
    """What was chosen, for the manifest and the report."""
    forms = {
        name: {
            "form": "dense" if matrix.is_dense else "factored",
            "shape": list(matrix.shape),
            "live_rank": None if matrix.is_dense else matrix.rank,
            "tailor": _describe_tailor(model, matrix),
        }
        for name, matrix in model.blocks[0].items()
    }
    table = model.conditioning
    is_baked = isinstance(table, ModulationTable | LowRankTable)
    rank = {"rank": table.rank, "error_db": round(table.error_db, 1)} if isinstance(table, LowRankTable) else None
    return {
        "conditioning": "modulation table" if is_baked else "conditioning table and adaLN layers",
        "low_rank_modulations": rank,
        **({} if model.truncation_error is None else {"rank_truncation_error": round(model.truncation_error, 6)}),
        "matrices_of_a_block": forms,
    }


def _describe_tailor(model: CompactModel, matrix: Matrix) -> str:
    if model.pack_rank:
        return "pack"
    return "merged" if matrix.gate is not None else "apart" if matrix.tailors else "none"
