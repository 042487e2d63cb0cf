"""`model_index.json` of a diffusers folder, as far as it is ours."""

from __future__ import annotations

from typing import TypedDict


class ClassPlace(TypedDict):
    """Where the pipeline finds a class."""

    names: list[str]
    component: str
    label: int


class PipelineSettings(TypedDict):
    """What it says beside the components."""

    classes: dict[str, ClassPlace]
    null_label: int
    steps: int
    guidance_scale: float
    guidance_interval: list[float]
    scaling_factor: float
    shift_factor: float
