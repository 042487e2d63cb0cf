"""What a suite measures of weights alone: how large tailors are, and how far the gradient of one image reaches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.classes import resolve_classes
from kind_core.dit import KindDiT
from kind_train.benchmark.cells import OfWeights
from kind_train.benchmark.tasks import Task
from kind_train.data.latents import load_latents_or_photos
from kind_train.evaluate.against import Measured
from kind_train.objective import Objective

_IMAGES, _SEED = 16, 0


def measure_norms(checkpoint: Path, task: Task) -> dict[OfWeights, Measured]:
    """|U diag(s) V^T| of each tailor of the task over that of the learngene, Frobenius: means over the matrices.

    The interval is the lowest and highest class.
    """
    model = _load(checkpoint, task)
    state = model.learngene_state()
    shares = np.zeros((model.config.num_classes, 0))
    for name, _, _ in model.config.matrix_names():
        whole = _norm(*(state[f"{name}.{factor}"] for factor in "UsV"))
        tailors = [model.tailors.state_of(index) for index in range(model.config.num_classes)]
        own = [_norm(*(tailor[f"{name}.{factor}"] for factor in "UsV")) / whole for tailor in tailors]
        shares = np.concatenate([shares, np.array(own)[:, None]], axis=1)
    means = shares.mean(1)
    return {
        "tailor_norm": Measured(
            value=float(means.mean()), low=float(means.min()), high=float(means.max()), n=len(means)
        )
    }


def measure_gradients(checkpoint: Path, task: Task) -> dict[OfWeights, Measured]:
    """The share that the gradient of one image reaches of all trained weights, of components and of tailors.

    Of a model without gates no component is a tailor: it has no share of them.
    """
    model = _load(checkpoint, task)
    config = model.config
    photos = load_latents_or_photos(task.data, config.sample_size, classes=task.classes)
    objective = Objective(read_config(checkpoint).diffusion, torch.device("cpu"))
    generator = torch.Generator().manual_seed(_SEED)
    found: dict[OfWeights, list[float]] = {}
    for index in torch.randperm(len(photos), generator=generator)[:_IMAGES].tolist():
        model.zero_grad()
        stored = photos.read(torch.tensor([index]))
        image = photos.to_input(stored, lambda: torch.randn((1, *photos.input_shape), generator=generator))
        timesteps = objective.draw_timesteps(1, generator)
        noise = torch.randn(image.shape, generator=generator)
        label = photos.labels[index][None]
        noisy = objective.add_noise(image, noise, timesteps)
        output = model(noisy, objective.condition(timesteps), label, label)
        torch.autograd.backward(objective.loss(output, image, noise, timesteps).sum())
        for share, tensors in _group_gradients(model).items():
            reached = sum(int((one != 0).sum()) for one in tensors) / max(1, sum(one.numel() for one in tensors))
            found.setdefault(share, []).append(reached)
    return {
        share: Measured(value=float(np.mean(values)), low=min(values), high=max(values), n=len(values))
        for share, values in found.items()
    }


def _group_gradients(model: KindDiT) -> dict[OfWeights, list[torch.Tensor]]:
    """The gradients that each share is of, zeros where there is none."""
    every = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    matrices = [name for name, _, _ in model.config.matrix_names()]
    bank = every["tailors.weight"]
    tailors = [one for name in matrices if model.tailors.rank for one in model.tailors.factors(bank, name)]
    learngene = [every[f"{name}.{factor}"] for name in matrices for factor in "UsV"]
    groups: dict[OfWeights, list[torch.Tensor]] = {
        "gradient_share": [*every.values()],
        "component_gradient_share": [*learngene, *tailors],
        "tailor_gradient_share": tailors,
    }
    return {name: tensors for name, tensors in groups.items() if tensors}


MEASURES: dict[str, Callable[[Path, Task], dict[OfWeights, Measured]]] = {
    "norms": measure_norms,
    "gradients": measure_gradients,
}


def _load(checkpoint: Path, task: Task) -> KindDiT:
    chosen = [found.index for found in resolve_classes(task.classes, read_config(checkpoint).classes)]
    return load_checkpoint(checkpoint, chosen, with_decoder=False).model


def _norm(U: torch.Tensor, s: torch.Tensor, V: torch.Tensor) -> float:
    """Of U diag(s) V^T, without making it: |.|^2 = sum of (U^T U) (V^T V) s s^T."""
    scaled = U * s
    return float(((scaled.T @ scaled) * (V.T @ V)).sum().clamp(min=0).sqrt())
