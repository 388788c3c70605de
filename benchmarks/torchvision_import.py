"""Imports torchvision from PyPI with PyTorch's build for CPUs."""

import contextlib


def import_torchvision():
    """Import torchvision, if it is installed. timm and transformers import it too.

    Its operators are built for CUDA, so they do not load with PyTorch's build for CPUs. Its
    import fails when it describes the first of them. Declare them before a second import.
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
