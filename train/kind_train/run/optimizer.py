"""AdamW and EMA for a decomposed model: ordinary for the learngene, row by row for the tailors.

AdamW with momentum moves parameters that got no gradient. A tailor must not move when its class is absent, so its row
of the bank has moments, a step count and an average of its own that advance only when its class is in the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kind_core.dit import DivertedTransformer
from kind_train.run.memory import clip_gradients, local, shard_like

BETAS = (0.9, 0.999)
EPS = 1e-8


class DivertedAdamW:
    """AdamW over a transformer. Call `rows = gather(classes)` before the forward pass and `step` after the backward.

    Parameters of the learngene that need no gradient are left alone; their average is their value.
    """

    def __init__(self, model: DivertedTransformer, *, weight_decay: float = 0.0, ema_decay: float = 0.9999) -> None:
        self.model = model
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.num_steps = 0
        everywhere = {n: p for n, p in model.named_parameters() if not n.startswith("tailors.")}
        self.learngene = {n: p for n, p in everywhere.items() if p.requires_grad}
        self.frozen = {n: p.detach() for n, p in everywhere.items() if not p.requires_grad}
        bank = model.tailors.weight.detach()
        # AdamW takes a group without parameters, but not a list without groups
        group = {"params": list(self.learngene.values())}
        self._adamw = torch.optim.AdamW([group], betas=BETAS, eps=EPS, weight_decay=weight_decay, fused=True)
        self._averages = {name: p.detach().clone() for name, p in self.learngene.items()}
        self._row_state = {name: torch.zeros_like(bank) for name in ("first", "second")}
        self._row_average = bank.clone()
        self._row_steps = torch.zeros(bank.shape[0], dtype=torch.long, device=bank.device)
        # Logarithm of all decays so far, overall and at each row's last touch: their difference is what a row missed.
        self._log_decay = 0.0
        self._row_log_decay = torch.zeros(bank.shape[0], dtype=torch.float64, device=bank.device)

    def gather(self, classes: Tensor) -> Tensor:
        """The rows of `classes` (unique, long) as a leaf tensor that collects the gradient of a bank in training."""
        bank = self.model.tailors.weight
        return bank.detach()[classes].requires_grad_(bank.requires_grad)

    def clip_gradients(self, rows: Tensor, max_norm: float) -> Tensor:
        """Scale all gradients so that their joint norm is at most `max_norm`; returns the norm before."""
        return clip_gradients([*self.learngene.values()], rows, max_norm)

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that is not taken."""
        self._adamw.zero_grad()

    @torch.no_grad()
    def step(self, classes: Tensor, rows: Tensor, learning_rate: float) -> None:
        """Update the learngene and the rows of `classes`, and their averages; every other row keeps its bits."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._adamw.zero_grad()
        self.num_steps += 1
        # Short runs: let the average forget the random start, as diffusers' EMAModel warms up.
        decay = min(self.ema_decay, self.num_steps / (9 + self.num_steps))
        if self.learngene:
            averages = [local(average) for average in self._averages.values()]
            torch._foreach_lerp_(averages, [local(p.detach()) for p in self.learngene.values()], 1 - decay)
        if rows.grad is not None:
            self._row_average[classes] = self._current_average(classes)
            self._row_log_decay[classes] = self._log_decay
            self._step_rows(classes, rows.detach(), rows.grad, learning_rate)
            self._row_average[classes] = self._row_average[classes].lerp(rows.detach(), 1 - decay)
            self._row_log_decay[classes] += math.log(decay)
        self._log_decay += math.log(decay)

    def _step_rows(self, classes: Tensor, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        self._row_steps[classes] += 1
        count = self._row_steps[classes][:, None]
        first, second = (state[classes] for state in self._row_state.values())
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        update = (first / (1 - BETAS[0] ** count)) / ((second / (1 - BETAS[1] ** count)).sqrt() + EPS)
        # in place on what gather() copied: the bank gets the finished rows
        rows.mul_(1 - learning_rate * self.weight_decay).sub_(learning_rate * update)
        self._row_state["first"][classes] = first
        self._row_state["second"][classes] = second
        self.model.tailors.weight[classes] = rows

    def _current_average(self, classes: Tensor | slice) -> Tensor:
        """A row that stood still while the decays multiplied to w: average = value + w (average - value)."""
        weight = (self._log_decay - self._row_log_decay[classes]).exp().to(self._row_average.dtype)[:, None]
        return torch.lerp(self.model.tailors.weight.detach()[classes], self._row_average[classes], weight)

    @torch.no_grad()
    def averaged_state(self) -> dict[str, Tensor]:
        """The EMA weights as a state dict of the model; of a sharded one they are sharded."""
        return {**self.frozen, **self._averages, "tailors.weight": self._current_average(slice(None))}

    def state_dict(self) -> dict[str, Tensor]:
        """All state as flat tensors, for a safetensors file; `memory.gather` makes those of a sharded model whole."""
        state = {f"average.{name}": value for name, value in self._averages.items()}
        for name, parameter in self.learngene.items():
            for key, value in self._adamw.state.get(parameter, {}).items():
                state[f"adamw.{key}.{name}"] = value
        state |= {f"rows.{name}": value for name, value in self._row_state.items()}
        state |= {
            "rows.average": self._row_average,
            "rows.steps": self._row_steps,
            "rows.log_decay": self._row_log_decay,
        }
        counts = {
            "num_steps": torch.tensor(self.num_steps),
            "log_decay": torch.tensor(self._log_decay, dtype=torch.float64),
        }
        return {**state, **counts}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`, all of it whole, whether the model is sharded or not."""
        self.num_steps, self._log_decay = int(state["num_steps"]), float(state["log_decay"])
        for name, parameter in self.learngene.items():
            average = state[f"average.{name}"]
            if average.shape != parameter.shape:
                raise RuntimeError(f"the average of {name} has shape {average.shape}, expected {parameter.shape}")
            self._averages[name] = shard_like(average, parameter)
            if f"adamw.step.{name}" in state:
                moments = {key: state[f"adamw.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}
                step = state[f"adamw.step.{name}"].clone().to(parameter.device)
                self._adamw.state[parameter] = {
                    "step": step,
                    **{key: shard_like(moment, parameter) for key, moment in moments.items()},
                }
        for name in self._row_state:
            self._row_state[name].copy_(state[f"rows.{name}"])
        self._row_average.copy_(state["rows.average"])
        self._row_steps.copy_(state["rows.steps"])
        self._row_log_decay.copy_(state["rows.log_decay"])
