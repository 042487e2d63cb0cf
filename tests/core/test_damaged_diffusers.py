"""Every setting of a diffusers folder as other values: each is refused in a line that names it, or what it makes runs.

None may end in a traceback, hang, or allocate what a file does not hold.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from test_damaged_config import places, with_value

from diffusers_folders import write_folder
from kind_core.autoencoder import encode_moments, load_autoencoder, read_autoencoder
from kind_core.diffusers.component import default_settings
from kind_core.diffusers.folder import load_diffusers, read_diffusers_config
from kind_core.errors import KindError
from kind_core.schedule import choose_sampling, read_sampler_table
from tiny_autoencoder import save_autoencoder

VALUES = (
    None, True, False, -1, 0, 1, 2, 7, 10**4, 10**6, 10**9, 2**31 - 1, 10**18, 10**400, 1e30, -1e30, math.nan, math.inf,
    0.5, 1e-9, 1e-300, "x", "", "y" * 10**5, "\ud800", "a\nb", "32", [], [1, 2], [10**9], [None], ["x", "y"], {},
    {"a": 1}, [[[]]],
)  # fmt: skip
EVERY = 23  # of some 4,500; it shares no factor with the number of values, so every place and every value has its turn
LONGEST = 700  # the path of the file with it
SCHEDULERS = {
    "ddim": DDIMScheduler(clip_sample=False),
    "dpmpp": DPMSolverMultistepScheduler(),
    "flow": FlowMatchEulerDiscreteScheduler(),
}
FILES = [
    ("AutoencoderKL", "ddim", "transformer/config.json", "DiTTransformer2DModel"),
    ("AutoencoderKL", "ddim", "model_index.json", None),
    ("AutoencoderKL", "ddim", "vae/config.json", "AutoencoderKL"),
    ("AutoencoderTiny", "ddim", "vae/config.json", "AutoencoderTiny"),
    *(("AutoencoderKL", one, "scheduler/scheduler_config.json", type(SCHEDULERS[one]).__name__) for one in SCHEDULERS),
]  # fmt: skip


@torch.no_grad()
def use(folder: Path) -> None:
    """All that a folder is read for: its table, a step, a picture, and a picture encoded."""
    config = read_diffusers_config(folder)
    sampling = choose_sampling(config.diffusion)
    read_sampler_table(config.diffusion, sampling.sampler, sampling.steps)
    checkpoint = load_diffusers(folder, [0])
    dit = checkpoint.config.dit
    latents = torch.randn(1, dit.in_channels, dit.sample_size, dit.sample_size)
    label = torch.tensor([0])
    assert checkpoint.model(latents, torch.tensor([10.0]), label, label).isfinite().all()
    if config.autoencoder is not None:
        found = read_autoencoder(folder / "vae")
        autoencoder = load_autoencoder(folder / "vae", found)
        picture = autoencoder.decode(latents).sample
        assert picture.isfinite().all()
        assert picture.shape[-1] == dit.sample_size * config.autoencoder.downscale
        assert encode_moments(autoencoder, found, picture).shape[-1] == dit.sample_size


def damage(file: Path, kind: str | None) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Places of a file, each with the whole document in which it holds another value, or nothing."""
    data = json.loads(file.read_text())
    for name in default_settings(kind) if kind else ():
        if name not in data:
            yield from (((name,), {**data, name: value}) for value in VALUES)
    for place in places(data):
        yield from ((place, with_value(data, place, value)) for value in VALUES)
        without = copy.deepcopy(data)
        inner = without
        for key in place[:-1]:
            inner = inner[key]
        del inner[place[-1]]
        yield place, without


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("autoencoder", "scheduler", "name", "kind"), FILES)
def test_a_damaged_setting_is_named_or_what_it_makes_runs(
    autoencoder: str, scheduler: str, name: str, kind: str | None, tmp_path: Path
) -> None:
    write_folder(tmp_path, SCHEDULERS[scheduler])
    save_autoencoder(tmp_path / "vae", autoencoder)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": ["diffusers", autoencoder]}))
    use(tmp_path)
    refused: list[tuple[str, str]] = []
    cases = list(damage(tmp_path / name, kind))[::EVERY]
    for place, document in cases:
        text = json.dumps(document)
        (tmp_path / name).write_text(text)
        try:
            use(tmp_path)
        except KindError as error:
            key = next(part for part in reversed(place) if isinstance(part, str))
            # what diffusers takes anyway is nobody's fault
            is_usual = kind is not None and document.get(key) == default_settings(kind).get(key)
            is_there = f'"{key}"' in text and not key.isdigit() and not is_usual
            refused.append((key if is_there else "", error.message))
    assert [pair for pair in refused if "\n" in pair[1] or len(pair[1]) > LONGEST] == []
    assert [pair for pair in refused if pair[0] not in pair[1] and "is not JSON" not in pair[1]] == []
    assert len(refused) > len(cases) / 3
