"""Trains a ViT on the base's photos from nothing; a killed run goes on from its state to the same network."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_core.errors import ResultsError
from kind_core.files.staging import PART, staged
from kind_core.files.tensor_files import write_tensors
from kind_train.benchmark.few_shot.vit import KindViT
from kind_train.benchmark.suite import FewShotScale, Network
from kind_train.config import TrainConfig
from kind_train.data.batches import draw_batch, step_generator
from kind_train.data.photo_set import PhotoSet
from kind_train.evaluate.small_classifier import move_photos

_NETWORK, _STATE = "network.safetensors", "state.safetensors"
_WARM, _DECAY, _SAVES = 0.1, 0.05, 10
_CURVE = "curve"


def shape_network(network: Network, scale: FewShotScale, num_classes: int) -> DiTConfig:
    """The architecture of a network; both have the same but for what their matrices are held as."""
    is_kind = network == "kind"
    return DiTConfig(
        sample_size=scale.size,
        patch_size=scale.patch_size,
        in_channels=3,
        hidden_size=scale.hidden_size,
        depth=scale.depth,
        num_heads=scale.num_heads,
        num_classes=num_classes,
        learngene_rank=scale.learngene_rank if is_kind else None,
        tailor_rank=scale.tailor_rank if is_kind else 0,
    )


class Pretraining:
    """One network in the making: AdamW, a warm-up, then a cosine down to nothing."""

    def __init__(
        self, network: Network, num_classes: int, scale: FewShotScale, seed: int, folder: Path, device: str
    ) -> None:
        self.scale, self.folder, self.device = scale, folder, device
        torch.manual_seed(seed)
        self.model = KindViT(shape_network(network, scale, num_classes)).to(device)
        self.config = TrainConfig(
            data="",
            output=str(folder),
            images=scale.images,
            batch_size=scale.batch_size,
            label_dropout=scale.gate_dropout,
            seed=seed,
        )
        self.steps = -(-scale.images // scale.batch_size)
        self.curve: list[tuple[float, float]] = []
        self._optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=_DECAY)

    @property
    def is_done(self) -> bool:
        """Whether the trained network lies in the folder."""
        return (self.folder / _NETWORK).exists()

    def read(self) -> KindViT:
        """The trained network that lies in the folder."""
        self._load(self.folder / _NETWORK)
        return self.model.eval()

    def run(self, photos: PhotoSet) -> KindViT:
        """The network trained on `photos`, from the state of a killed run where there is one."""
        first = self._resume()
        losses: list[float] = []
        every = max(1, self.steps // _SAVES)
        for step in range(first, self.steps):
            losses.append(self.take_step(step, photos))
            if (step + 1) % every == 0:
                self.curve.append(((step + 1) * self.scale.batch_size, sum(losses) / len(losses)))
                losses.clear()
                self.save(step + 1)
        self._write(self.folder / _NETWORK, self.model.state_dict())
        (self.folder / _STATE).unlink(missing_ok=True)
        return self.model.eval()

    def take_step(self, step: int, photos: PhotoSet) -> float:
        """Train on the batch of `step`, a function of the seed and its number; returns its loss."""
        generator = step_generator(self.config, step)
        batch = draw_batch(photos.labels, self.config, step, generator)
        images = move_photos(photos.to_unit(batch.indices, batch.flipped), generator).to(self.device)
        labels = photos.labels[batch.indices].to(self.device)
        gates, own = self.model.opened(len(labels)), None
        if gates is not None:
            is_open = (batch.labels >= 0).to(self.device)  # the others are seen by the learngene alone
            gates, own = gates * is_open[:, None], torch.where(is_open, labels, -1)
        loss = F.cross_entropy(self.model(images, gates, own), labels)
        done = step / self.steps
        share = min(1.0, (done + 1e-3) / _WARM) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self._optimizer.param_groups:
            group["lr"] = self.scale.learning_rate * share
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        return loss.item()

    def save(self, step: int) -> None:
        """Write what a killed run goes on from with `step`."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"{key}/{name}": one for key, one in self._optimizer.state[parameter].items()}
        self._write(self.folder / _STATE, tensors | {"steps": torch.tensor(step)})

    def _write(self, file: Path, tensors: dict[str, Tensor]) -> None:
        with staged(file, PART, force=True) as temporary:
            write_tensors(temporary, tensors | {_CURVE: torch.tensor(self.curve, dtype=torch.float64).view(-1, 2)})

    def _resume(self) -> int:
        """The step to go on with, 0 where there is no state."""
        file = self.folder / _STATE
        if not file.exists():
            return 0
        tensors = self._load(file, "model/")
        for name, parameter in self.model.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self._optimizer.state[parameter] = {key: tensors[f"{key}/{name}"] for key in keys}
        return int(tensors["steps"])

    def _load(self, file: Path, prefix: str = "") -> dict[str, Tensor]:
        """Weights and curve of a file into the model; returns all its tensors."""
        try:
            tensors = load_file(file, device=str(self.device))
            self.curve = [(images, loss) for images, loss in tensors.pop(_CURVE).tolist()]
            own = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
            self.model.load_state_dict(own)
        except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ResultsError(f"{file} is damaged: {reason}", "remove it and make it again with --resume") from error
        return tensors
