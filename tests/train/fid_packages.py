"""Lets the packages of the extra `fid` be imported beside a torch that their torchvision was not built for."""

from __future__ import annotations

import sys

import torch


def mend_torchvision() -> None:
    """Declare the two operators that torchvision's import asks for; what is tested here never calls them.

    PyPI has torchvision for CUDA alone, whose own operators do not load beside a torch for CPUs.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
