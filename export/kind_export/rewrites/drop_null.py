"""Given: conditioning baked into a table, of a model that takes no guidance.
Result: the table without the null label, which no step looks up. Other models are left as they are.
"""

from __future__ import annotations

from dataclasses import replace

from kind_export.compact.model import CompactModel, ConditioningTable, ModulationTable


def drop_null(model: CompactModel) -> CompactModel:
    """Keep the classes' rows alone; a base, which without a pack is the null label, is not rewritten by this."""
    table = model.conditioning
    if model.sampler.takes_guidance:
        return model
    if isinstance(table, ConditioningTable):
        return replace(model, conditioning=replace(table, vectors=table.vectors[:, : model.num_classes]))
    assert isinstance(table, ModulationTable), "bake_conditioning comes first"
    return replace(model, conditioning=ModulationTable(values=table.values[:, : model.num_classes]))
