"""Tiny folders in the layout of facebook/DiT-XL-2-256, random in zero-initialised layers too."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from kind_core.diffusers.dit import to_diffusers
from kind_core.dit import dense_state
from tiny import tiny_config, tiny_model

LABELS = {"0": "tench, Tinca tinca", "1": "goldfish, Carassius auratus"}
NUM_LABELS = 3  # one more than is named


def write_folder(path: Path, scheduler: Any = None, **changes: Any) -> None:
    """A pipeline folder with latents of four channels and a variance; `changes` are fields of `DiTConfig`."""
    architecture = {
        "num_classes": NUM_LABELS, "in_channels": 4, "learn_sigma": True, "learngene_rank": None, "tailor_rank": 0,
        "mlp_norm_eps": 1e-5,
    }  # fmt: skip
    model = tiny_model(tiny_config(**(architecture | changes)))
    labels = torch.cat([model.tailors.label_embeddings(), model.null_label_embedding[None]]).detach()
    write_pipeline(path, to_diffusers(model.config, dense_state(model), labels), scheduler)


def write_pipeline(path: Path, transformer: DiTTransformer2DModel, scheduler: Any = None) -> None:
    """A pipeline folder without an autoencoder."""
    transformer.save_pretrained(path / "transformer")
    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    scheduler.save_pretrained(path / "scheduler")
    index = {
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", type(scheduler).__name__],
        "transformer": ["diffusers", "Transformer2DModel"],
        "id2label": LABELS,
    }
    (path / "model_index.json").write_text(json.dumps(index))


@torch.no_grad()
def random_transformer(**changes: Any) -> DiTTransformer2DModel:
    """A transformer made in diffusers, every number of every block drawn; `changes` are its arguments."""
    architecture = {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "num_layers": 2, "sample_size": 8,
        "patch_size": 2, "num_embeds_ada_norm": NUM_LABELS,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(**(architecture | changes)).eval()
        for name, parameter in transformer.named_parameters():
            parameter.normal_(mean=float("norm3.weight" in name), std=1.0 if "table" in name else 0.2)
    return transformer


def evil_pickle() -> bytes:
    """A file of weights that ends the program where it is unpickled without care."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, ("raise SystemExit('the pickle ran')",))

    return pickle.dumps({"weight": Evil()})
