"""Estimates the time and memory of training by a `Distiller` on several devices."""

import math
from dataclasses import dataclass

import keras

from keras_tokenlearner._checks import check_model
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.analysis.costs import costs
from keras_tokenlearner.models.names import block_name
from keras_tokenlearner.models.structure import Structure

IMAGENET_IMAGES = 1_281_167
# Assumption: training a ViT in bfloat16 reaches 40% of the peak rate.
UTILIZATION = 0.4
# Bytes per channel and token that a block stores for its gradient: 17 numbers of two bytes. These
# numbers are the inputs of norms, projections and products, and the hidden units of the MLP.
# The MLP is four times wider. Fused attention stores no attention weights.
_KEPT_BYTES = 34


@dataclass(frozen=True)
class Machine:
    """A machine with several equal devices.

    Attributes:
        name: Name of the machine.
        devices: Number of devices.
        teraflops: Peak of one device in bfloat16, in 10^12 operations per second.
        gibibytes: Memory of one device.
    """

    name: str
    devices: int
    teraflops: float
    gibibytes: float


# Peaks from the makers' data sheets: NVIDIA H100 SXM and A100 (both without sparsity), and Cloud
# TPU v5e.
MACHINES = (
    Machine("8 x H100", 8, 989.0, 80.0),
    Machine("8 x A100 40 GB", 8, 312.0, 40.0),
    Machine("v5e-8", 8, 197.0, 16.0),
)


@dataclass(frozen=True)
class Needs:
    """Time and memory of a run on a machine, computed and not measured.

    Attributes:
        machine: The machine.
        hours: Time of the whole run at 40% of the peak. Reading images may take longer.
        gibibytes: Memory per device, for weights, gradients, AdamW's moments and the teacher. Also
            for the student's activations of the device's part of the batch.
    """

    machine: Machine
    hours: float
    gibibytes: float

    def __str__(self) -> str:
        fits = "" if self.gibibytes <= self.machine.gibibytes else ", more than its memory"
        return (
            f"{self.machine.name}: {self.hours:.1f} hours, {self.gibibytes:.1f} GiB per device"
            f"{fits} (computed, not measured)"
        )


@own_errors
def needs(
    student: keras.Model,
    teacher: keras.Model,
    epochs: int,
    batch_size: int,
    images: int = IMAGENET_IMAGES,
) -> list[Needs]:
    """Estimate the time and memory of training a student on common machines.

    A training step costs one forward pass of the teacher and three of the student. A multiply-add
    is two operations.

    Args:
        student: The model to train.
        teacher: The model whose outputs the student reproduces.
        epochs: Integer, number of epochs.
        batch_size: Integer, images per step on all devices together.
        images: Integer, training images. Defaults to the number of images in ImageNet-1k.

    Returns:
        A `Needs` for each machine.

    Example:

    >>> teacher = create_model("vit_s16", classes=1000)
    >>> for each in needs(retrofit(teacher, at=6), teacher, epochs=30, batch_size=1024):
    ...     print(each)  # doctest: +ELLIPSIS
    8 x H100: ... hours, ... GiB per device (computed, not measured)
    8 x A100 40 GB: ... hours, ... GiB per device (computed, not measured)
    v5e-8: ... hours, ... GiB per device (computed, not measured)
    """
    check_model("needs", "student", student)
    check_model("needs", "teacher", teacher)
    macs = costs(teacher).macs + 3 * costs(student).macs
    found = []
    for machine in MACHINES:
        peak = machine.devices * machine.teraflops * 1e12
        hours = 2 * macs * images * epochs / (UTILIZATION * peak) / 3600
        part = math.ceil(batch_size / machine.devices)
        size = 16 * student.count_params() + 4 * teacher.count_params()
        found.append(Needs(machine, hours, (size + part * kept_bytes(student)) / 2**30))
    return found


def kept_bytes(student: keras.Model) -> int:
    """Return the bytes per example that the blocks of a model store for the gradient."""
    structure = Structure("needs", student)
    blocks = [student.get_layer(block_name(i)) for i in range(structure.num_blocks)]
    shapes = [block.output.shape for block in blocks]
    return _KEPT_BYTES * sum(tokens * channels for _, tokens, channels in shapes)
