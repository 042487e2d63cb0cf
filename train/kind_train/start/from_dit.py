"""Factors to start from: the singular value decomposition of the matrices of a trained DiT or PixArt.

    W = sum of u_i s_i v_i^T, the strongest first: the first N_G become the learngene, tailors take from the rest

`strongest`: every tailor is the next N_T components, the best approximation of W at one class's rank (Eckart-Young).
`dealt`: each class takes N_T others in turn, as in the paper's Eq. 5-7; all gates open give W as far as they go.
`random`: tailors as in a fresh model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kind_core.checkpoint import CHECKPOINT, save_checkpoint, subset_config
from kind_core.class_ids import parse_class_names
from kind_core.classes import resolve_classes
from kind_core.config import DiTConfig, ModelConfig, preset
from kind_core.diffusers.folder import AUTOENCODER_FOLDER, load_diffusers, read_diffusers_config
from kind_core.dit import DivertedTransformer, dense_state
from kind_core.diverted import DivertedLinear
from kind_core.errors import ConfigError
from kind_core.files.regular_files import measure_bytes
from kind_core.files.staging import check_output
from kind_core.hub import find_diffusers
from kind_core.text.checkpoint import make_model
from kind_core.text.folder import load_pixart, read_pixart_config
from kind_train.start.requests import InitRequest as InitRequest
from kind_train.start.requests import TailorStart as TailorStart

OnMatrix = Callable[[int, int], None]
# What a preset must share with the DiT: the factors are those of its matrices.
_SHAPE = ("hidden_size", "depth", "num_heads", "patch_size", "sample_size", "in_channels", "learn_sigma")


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixError:
    """How far the factors are off, of the norm of W: the learngene alone, and with the first and the last tailor."""

    name: str
    learngene: float
    first_class: float
    last_class: float


@dataclass(frozen=True, kw_only=True, slots=True)
class InitResult:
    """The errors by matrix of a block, over all blocks, then those of all matrices."""

    config: DiTConfig
    errors: tuple[MatrixError, ...]
    size_bytes: int


def init_from_dit(request: InitRequest, on_matrix: OnMatrix = lambda done, total: None) -> InitResult:
    """Write a KIND checkpoint whose factors are those of a DiT; raises a KindError and writes nothing otherwise."""
    check_output(request.output, CHECKPOINT, force=request.force)
    folder = find_diffusers(request.source)
    full = read_diffusers_config(folder)
    classes = [c.index for c in resolve_classes(request.classes, full.classes)] or list(range(full.dit.num_classes))
    config = subset_config(full, classes)
    dit = decomposed(config.dit, request)
    dense = load_diffusers(folder, classes).model
    dit = replace(dit, block_embedders=dense.config.block_embedders)
    return _write(replace(config, dit=dit), dense, request, folder, on_matrix)


def init_from_pixart(request: InitRequest, on_matrix: OnMatrix = lambda done, total: None) -> InitResult:
    """The same of a PixArt: a checkpoint of captions."""
    check_output(request.output, CHECKPOINT, force=request.force)
    folder = find_diffusers(request.source)
    full = read_pixart_config(folder, parse_class_names(request.domains))
    config = replace(full, dit=decomposed(full.dit, request))
    return _write(config, load_pixart(folder, full), request, folder, on_matrix)


def _write(
    config: ModelConfig, dense: DivertedTransformer, request: InitRequest, folder: Path, on_matrix: OnMatrix
) -> InitResult:
    """The checkpoint of `config` with the factors of `dense`, which lies in `folder`."""
    torch.manual_seed(request.seed)
    model = make_model(config)
    errors = decompose(dense, model, request.tailors, on_matrix)
    autoencoder = None if config.autoencoder is None else folder / AUTOENCODER_FOLDER
    save_checkpoint(request.output, config, model, autoencoder=autoencoder, force=request.force)
    return InitResult(config=config.dit, errors=errors, size_bytes=measure_bytes(request.output))


@torch.no_grad()
def decompose(
    dense: DivertedTransformer,
    model: DivertedTransformer,
    tailors: TailorStart,
    on_matrix: OnMatrix = lambda done, total: None,
) -> tuple[MatrixError, ...]:
    """Fill `model` with the factors of `dense`, which has the same classes; returns what they lose."""
    state = dense_state(dense)
    matrices = model.config.matrix_names()
    factored = {f"{name}.weight" for name, _, _ in matrices}
    model.load_state_dict({k: v for k, v in state.items() if k not in factored}, strict=False)
    model.tailors.label_embeddings().copy_(dense.tailors.label_embeddings())
    lost: dict[str, list[tuple[float, float, float, float]]] = {}
    for done, (name, _, _) in enumerate(matrices):
        squares = _decompose_matrix(model, name, state[f"{name}.weight"], tailors)
        lost.setdefault(name.rsplit(".", 1)[-1], []).append(squares)
        on_matrix(done + 1, len(matrices))
    every = [squares for rows in lost.values() for squares in rows]
    return tuple(_summarise(name, rows) for name, rows in (*lost.items(), ("all", every)))


def _decompose_matrix(
    model: DivertedTransformer, name: str, weight: torch.Tensor, tailors: TailorStart
) -> tuple[float, float, float, float]:
    """Squared norms: of W, and of what the learngene alone and with the first and the last tailor leaves of it."""
    U, s, Vh = torch.linalg.svd(weight, full_matrices=False)
    layer, bank = model.get_submodule(name), model.tailors
    assert isinstance(layer, DivertedLinear)
    rank = len(layer.s)
    layer.U.copy_(U[:, :rank])
    layer.s.copy_(s[:rank])
    layer.V.copy_(Vh[:rank].T)
    for index, row in enumerate(bank.weight if bank.rank and tailors != "random" else ()):
        start = rank + (index * bank.rank if tailors == "dealt" else 0)
        part = slice(start, start + bank.rank)
        for held, found in zip(bank.factors(row, name), (U[:, part].T, s[part], Vh[part]), strict=True):
            held.copy_(found)
    rest = weight - layer.learngene_weight()
    left = [rest - _tailor_weight(model, name, index) for index in (0, -1)]
    whole, without, first, last = (float(one.square().sum()) for one in (weight, rest, *left))
    return whole, without, first, last


def _tailor_weight(model: DivertedTransformer, name: str, index: int) -> torch.Tensor:
    if not model.tailors.rank:
        return torch.tensor(0.0)
    U, s, V = model.tailors.factors(model.tailors.weight[index], name)  # (rank, out), (rank,), (rank, in)
    return (U.T * s) @ V


def _summarise(name: str, rows: list[tuple[float, float, float, float]]) -> MatrixError:
    total, *lost = (sum(column) for column in zip(*rows, strict=True))
    learngene, first, last = (math.sqrt(one / total) if total else 0.0 for one in lost)
    return MatrixError(name=name, learngene=learngene, first_class=first, last_class=last)


def decomposed(dense: DiTConfig, request: InitRequest) -> DiTConfig:
    """The architecture of the DiT with the asked ranks; raises ConfigError where they do not fit it."""
    learngene_rank, tailor_rank = request.learngene_rank, request.tailor_rank or 0
    if request.preset is not None:
        wanted, _ = preset(request.preset)
        for field in _SHAPE:
            if getattr(wanted, field) != getattr(dense, field):
                raise ConfigError(
                    f"preset {request.preset!r} has {field} {getattr(wanted, field)}, the DiT {getattr(dense, field)}",
                    "choose the preset of its size, or give --learngene-rank and --tailor-rank",
                )
        if wanted.learngene_rank is None:
            raise ConfigError(f"preset {request.preset!r} is dense, so it has no factors", "choose a kind-* preset")
        learngene_rank, tailor_rank = wanted.learngene_rank, wanted.tailor_rank
    config = replace(dense, learngene_rank=learngene_rank, tailor_rank=tailor_rank)
    components = min(min(shape) for shape in config.matrix_shapes.values())
    num_taking = {"dealt": config.num_classes, "strongest": 1, "random": 0}[request.tailors]
    needed = (config.learngene_rank or 0) + num_taking * config.tailor_rank
    if needed > components:
        network, fewer = ("PixArt", "--domains") if request.is_pixart else ("DiT", "--classes")
        raise ConfigError(
            f"the factors need {needed} components, a matrix of the {network} has {components}",
            f"take lower ranks, fewer {fewer} or other --tailors",
        )
    return config
