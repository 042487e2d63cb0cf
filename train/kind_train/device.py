"""The device of a run: which one, and how it is set up."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from kind_core.errors import ConfigError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; `auto` is a CUDA GPU where there is one. Raises ConfigError when it cannot be used.

    Of several processes on a machine each takes the GPU of its `local_rank`, where `name` has no number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch raises an AssertionError where it was built without CUDA, and explains over several lines
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason}", "use --device cpu, or auto") from error
    return device


def tune_device(device: torch.device) -> None:
    """Let a GPU use its tensor cores for fp32 products and try out its convolutions; a CPU stays as it is.

    TF32 keeps 10 bits of the mantissa, more than the bf16 that training uses there by default.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def require_arithmetic(
    precision: str, device: torch.device, *, is_compiled: bool, capabilities: Mapping[str, object] | None = None
) -> None:
    """Raise ConfigError for a precision that does not compute right there; `capabilities` as torch tells a CPU's.

    Compiled for a CPU with AMX, torch 2.13's bf16 products gave a loss of 14.5 at the first step, where fp32 and eager
    bf16 gave 0.4, and NaN at the second. `auto` is fp32 on a CPU.
    """
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    if precision == "bf16" and is_compiled and device.type == "cpu" and found.get("amx_bf16"):
        raise ConfigError(
            f"--precision bf16 with --compile is wrong on this CPU: with AMX, torch {torch.__version__} gave losses "
            "that are not those of the model",
            "leave out --compile, or take --precision fp32",
        )
