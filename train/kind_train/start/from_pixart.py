"""A start from a PixArt: its matrices as learngene and tailors, as `from_dit` does it with a DiT's."""

from __future__ import annotations

from dataclasses import replace

import torch

from kind_core.checkpoint import CHECKPOINT, save_checkpoint
from kind_core.class_ids import parse_class_names
from kind_core.diffusers.folder import AUTOENCODER_FOLDER
from kind_core.files.staging import check_output
from kind_core.hub import find_diffusers
from kind_core.text.folder import load_pixart, read_pixart_config
from kind_core.text.pixart import KindPixArt
from kind_train.start.from_dit import InitResult, OnMatrix, decompose, decomposed
from kind_train.start.init_request import InitRequest


def init_from_pixart(request: InitRequest, on_matrix: OnMatrix = lambda done, total: None) -> InitResult:
    """Write a checkpoint of captions whose factors are those of a PixArt; raises a KindError and writes nothing
    otherwise."""
    check_output(request.output, CHECKPOINT, force=request.force)
    folder = find_diffusers(request.source)
    full = read_pixart_config(folder, parse_class_names(request.domains))
    config = replace(full, dit=decomposed(full.dit, request))
    assert config.text is not None
    dense = load_pixart(folder, full)
    torch.manual_seed(request.seed)
    model = KindPixArt(config.dit, config.text)
    errors = decompose(dense, model, request.tailors, on_matrix)
    autoencoder = None if config.autoencoder is None else folder / AUTOENCODER_FOLDER
    save_checkpoint(request.output, config, model, autoencoder=autoencoder, force=request.force)
    size_bytes = sum(file.stat().st_size for file in request.output.rglob("*") if file.is_file())
    return InitResult(config=config.dit, errors=errors, size_bytes=size_bytes)
