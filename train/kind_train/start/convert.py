"""A checkpoint ready to ship: half the bytes, the sampling defaults that measured best, and whose it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from kind_core.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from kind_core.config.sampling import choose_defaults
from kind_core.errors import CheckpointError, ConfigError
from kind_core.files.regular_files import measure_bytes
from kind_core.files.staging import check_output
from kind_core.schedule import choose_sampling

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def convert_checkpoint(
    source: Path,
    output: Path,
    *,
    dtype: str = "fp16",
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    author: str | None = None,
    licence: str | None = None,
    trained_on: str | None = None,
    force: bool = False,
) -> int:
    """Write `source` to `output` in `dtype`, with other sampling defaults and provenance where given.

    Returns the bytes written; raises CheckpointError when a weight does not fit into fp16.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    check_output(output, CHECKPOINT, force=force)
    checkpoint = load_checkpoint(source)
    largest = max(float(parameter.detach().abs().max()) for parameter in checkpoint.model.parameters())
    if dtype == "fp16" and largest > torch.finfo(torch.float16).max:
        raise CheckpointError(f"{source} holds a weight of {largest:.3g}, fp16 ends at 65504", "use --dtype fp32")
    diffusion = choose_defaults(checkpoint.config.diffusion, sampler=sampler, steps=steps, guidance=guidance)
    given = {"author": author, "licence": licence, "data": trained_on}
    told = {name: text for name, text in given.items() if text is not None}
    provenance = replace(checkpoint.config.provenance, **told)
    if steps is not None:
        choose_sampling(diffusion)
    config = replace(checkpoint.config, diffusion=diffusion, provenance=provenance)
    autoencoder = None if checkpoint.decoder is None else checkpoint.decoder.folder
    save_checkpoint(output, config, checkpoint.model, dtype=DTYPES[dtype], autoencoder=autoencoder, force=force)
    return measure_bytes(output)
