"""Imports torchvision from PyPI with PyTorch's build for CPUs."""

import contextlib


def import_torchvision():
    """Import torchvision, if it is installed. timm and transformers import it too.

    The operators of torchvision are built for CUDA and do not load with PyTorch's build for CPUs.
    The import then fails at its first operator. This function declares the operators, so that the
    imports of timm and transformers succeed.
    """
    with contextlib.suppress(ModuleNotFoundError):
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
            import torch

            for name in ("nms", "qnms"):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)
