"""The figures of the paper, `data/paper_figures.toml`, as they are read."""

from __future__ import annotations

from functools import cache
from typing import NotRequired, TypedDict

from kind_bench.data_files import read_table


class SizeEntry(TypedDict):
    """Table 1: parameters of one class's model, of DiT-B's size and of DiT-L's."""

    system: str
    parameters: list[str]
    presets: list[str]
    depths: NotRequired[list[int]]


class MethodEntry(TypedDict):
    """Table 2: what a method costs, at either size."""

    system: str
    method: str
    trained: list[str]
    flops: list[str]
    gpu_hours: list[str]


class MobileModel(TypedDict):
    """A model of the extrapolation to phones; seconds by device."""

    system: str
    parameters: str
    memory: str
    flops: str
    seconds: list[str]


class MobileTable(TypedDict):
    """The extrapolation to phones: what devices sustain, and models by preset."""

    gflops: dict[str, float]
    models: dict[str, MobileModel]


class SettingsTable(TypedDict):
    """Components of the models that are pre-trained."""

    rank: list[str]


class TasksTable(TypedDict):
    """New classes of each task."""

    classes: list[int]


class PaperFigures(TypedDict):
    """The whole file. Figures are texts: their digits count."""

    table_1: list[SizeEntry]
    table_2: list[MethodEntry]
    mobile: MobileTable
    settings: SettingsTable
    tasks: TasksTable


@cache
def load_figures() -> PaperFigures:
    """The tables of the file."""
    figures: PaperFigures = read_table("paper_figures")
    return figures
