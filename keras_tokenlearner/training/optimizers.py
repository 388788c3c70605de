from collections.abc import Mapping
from typing import Self, Unpack, cast

import keras

from keras_tokenlearner._checks import (
    check_int,
    check_not_negative,
    check_positive,
    check_positive_fraction,
)
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.names import HEAD
from keras_tokenlearner.training.layer_rates import LayerwiseAdamW, LayerwiseMuon, LayerwiseSGD
from keras_tokenlearner.training.weight_decay import (
    SGD,
    UNDECAYED,
    AdamW,
    Muon,
    OptimizerArguments,
    UpdateArguments,
)

# Weights with two axes that map no vectors: learned tokens, and values for each position.
_LISTS = r"/(tokens|latent|prior_table|position_bias)$"
_LAYERWISE = {AdamW: LayerwiseAdamW, Muon: LayerwiseMuon, SGD: LayerwiseSGD}


@own_errors
def adamw(
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.05,
    global_clipnorm: float | None = 1.0,
    layer_decay: float = 1.0,
) -> keras.optimizers.Optimizer:
    """Return Keras's AdamW with the usual settings for transformers.

    The learning rate warms up linearly from zero and decays to zero by a cosine. Gradients are
    clipped by their global norm. Biases, norms and positions have no weight decay.

    Args:
        learning_rate: Float, the highest learning rate, at the end of the warm-up.
        steps: Integer, optimizer steps of the whole run.
        warmup_steps: Integer, steps of the warm-up.
        weight_decay: Float, decoupled weight decay.
        global_clipnorm: Float, the largest global norm of the gradients. `None` for no clipping.
        layer_decay: Float in (0, 1], the learning rate of a block divided by the learning rate of
            the next block. 1 means the same rate for all blocks.

    Raises:
        ValueError: If an argument is out of range, or the warm-up takes the whole run.

    Example:

    >>> optimizer = adamw(1e-3, steps=100, warmup_steps=10)
    >>> optimizer.build([keras.Variable(np.zeros(3))])
    >>> float(optimizer.learning_rate)
    0.0
    """
    schedule = _cosine("adamw", learning_rate, steps, warmup_steps)
    return _make(
        "adamw",
        AdamW,
        schedule,
        layer_decay,
        weight_decay=weight_decay,
        global_clipnorm=global_clipnorm,
    )


@own_errors
def muon(
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.05,
    layer_decay: float = 1.0,
) -> keras.optimizers.Optimizer:
    """Return Keras's Muon, which trains small models in fewer epochs than AdamW.

    Muon orthogonalises the updates of kernels with two axes, as in MLPs. The biases of queries,
    keys and values have an axis for the heads, and use Muon too. Other variables use AdamW: the
    layer `head`, embeddings, positions, learned tokens, other biases, and kernels with three axes.
    Schedule and weight decay are the same as in `adamw`.

    Args:
        learning_rate: Float, the highest learning rate, at the end of the warm-up.
        steps: Integer, optimizer steps of the whole run.
        warmup_steps: Integer, steps of the warm-up.
        weight_decay: Float, decoupled weight decay.
        layer_decay: Float in (0, 1], as for `adamw`.

    Raises:
        ValueError: If an argument is out of range, or the warm-up takes the whole run.

    Example:

    >>> optimizer = muon(2e-3, steps=100, warmup_steps=10)
    >>> optimizer.build([keras.Variable(np.zeros((3, 4)))])
    >>> float(optimizer.learning_rate)
    0.0

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    return _make(
        "muon",
        Muon,
        _cosine("muon", learning_rate, steps, warmup_steps),
        layer_decay,
        weight_decay=weight_decay,
        exclude_layers=[HEAD, _LISTS],
    )


@own_errors
def sgd(
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    global_clipnorm: float | None = 1.0,
    layer_decay: float = 1.0,
    **arguments: Unpack[UpdateArguments],
) -> keras.optimizers.Optimizer:
    """Return Keras's SGD with momentum 0.9 and the schedule of `adamw`, as for ViT's fine-tuning.

    Args:
        learning_rate: Float, the highest learning rate, at the end of the warm-up.
        steps: Integer, optimizer steps of the whole run.
        warmup_steps: Integer, steps of the warm-up.
        weight_decay: Float, decoupled weight decay.
        global_clipnorm: Float, the largest global norm of the gradients. `None` for no clipping.
        layer_decay: Float in (0, 1], as for `adamw`.
        **arguments: Arguments of `keras.optimizers.SGD`, such as `use_ema`.

    Raises:
        ValueError: If an argument is out of range, or the warm-up takes the whole run.

    Example:

    >>> sgd(0.03, steps=100).momentum
    0.9
    """
    schedule = _cosine("sgd", learning_rate, steps, warmup_steps)
    return _make(
        "sgd",
        SGD,
        schedule,
        layer_decay,
        momentum=0.9,
        weight_decay=weight_decay,
        global_clipnorm=global_clipnorm,
        **arguments,
    )


@own_errors
def adamw_linear(
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.1,
    layer_decay: float = 1.0,
    **arguments: Unpack[UpdateArguments],
) -> keras.optimizers.Optimizer:
    """Return `adamw` with a linear decay of the learning rate, as in the pre-training of ViT.

    Args:
        learning_rate: Float, the highest learning rate, at the end of the warm-up.
        steps: Integer, optimizer steps of the whole run.
        warmup_steps: Integer, steps of the warm-up.
        weight_decay: Float, decoupled weight decay.
        layer_decay: Float in (0, 1], as for `adamw`.
        **arguments: Arguments of `keras.optimizers.AdamW`, such as `use_ema`.

    Raises:
        ValueError: If an argument is out of range, or the warm-up takes the whole run.
    """
    schedule = LinearDecay(learning_rate, steps, warmup_steps)
    return _make(
        "adamw_linear",
        AdamW,
        schedule,
        layer_decay,
        weight_decay=weight_decay,
        global_clipnorm=1.0,
        **arguments,
    )


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from zero, and falls linearly back to zero.

    Args:
        learning_rate: Float, the highest learning rate, at the end of the warm-up.
        steps: Integer, steps of the whole run.
        warmup_steps: Integer, steps of the warm-up.

    Raises:
        ValueError: If an argument is out of range, or the warm-up takes the whole run.

    Example:

    >>> schedule = LinearDecay(1.0, steps=10, warmup_steps=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, learning_rate: float, steps: int, warmup_steps: int = 0) -> None:
        _check_schedule("LinearDecay", learning_rate, steps, warmup_steps)
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        step = keras.ops.cast(step, "float32")
        rising = step / max(self.warmup_steps, 1)
        falling = (self.steps - step) / max(self.steps - self.warmup_steps, 1)
        factor = keras.ops.where(step < self.warmup_steps, rising, falling)
        return self.learning_rate * keras.ops.maximum(factor, 0.0)

    def get_config(self) -> dict[str, JSON]:
        return {name: getattr(self, name) for name in ("learning_rate", "steps", "warmup_steps")}


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class OfSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule for gradient accumulation that counts optimizer steps, not parts of batches.

    Keras counts the parts by design, so its schedules would end too early.

    Args:
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`.
        parts: Integer, number of parts of each batch. The gradients of the parts are accumulated.

    Example:

    >>> schedule = OfSteps(LinearDecay(1.0, steps=10), parts=4)
    >>> [round(float(schedule(part)), 3) for part in (0, 3, 4, 40)]
    [1.0, 1.0, 0.9, 0.0]
    """

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, parts: int
    ) -> None:
        self.schedule = schedule
        self.parts = parts

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        return self.schedule(keras.ops.floor_divide(step, self.parts))

    def get_config(self) -> dict[str, JSON]:
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "parts": self.parts}

    @classmethod
    def from_config(cls, config: Mapping[str, JSON]) -> Self:
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, cast(int, config["parts"]))


def _make(
    owner: str,
    kind: type[keras.optimizers.Optimizer],
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    layer_decay: float,
    **arguments: Unpack[OptimizerArguments],
) -> keras.optimizers.Optimizer:
    """Return an optimizer without weight decay of biases, norms and positions."""
    if "weight_decay" in arguments:
        decay = check_not_negative(owner, "weight_decay", arguments["weight_decay"])
        arguments["weight_decay"] = decay
        if kind is Muon:
            arguments["adam_weight_decay"] = decay
        if kind is SGD and not decay:
            del arguments["weight_decay"]  # Keras would subtract zeros in every step
    clipnorm, parts = arguments.get("global_clipnorm"), arguments.get("gradient_accumulation_steps")
    if clipnorm is not None:
        check_positive(owner, "global_clipnorm", clipnorm)
    if parts:
        schedule = OfSteps(schedule, parts)
    if check_positive_fraction(owner, "layer_decay", layer_decay) != 1:
        return _LAYERWISE[kind](schedule, layer_decay, UNDECAYED, **arguments)
    return kind(schedule, **arguments)


def _check_schedule(owner: str, learning_rate: float, steps: int, warmup_steps: int) -> None:
    check_positive(owner, "learning_rate", learning_rate)
    check_int(owner, "steps", steps)
    check_int(owner, "warmup_steps", warmup_steps, minimum=0)
    if steps <= warmup_steps:
        raise ValueError(
            f"{owner}: the run must have more steps than its warm-up. Raise `steps` (`epochs`), "
            "or lower `warmup_steps` (`warmup_epochs`). "
            f"Received: {steps} steps, {warmup_steps} warm-up steps"
        )


def _cosine(
    owner: str, learning_rate: float, steps: int, warmup_steps: int
) -> keras.optimizers.schedules.CosineDecay:
    _check_schedule(owner, learning_rate, steps, warmup_steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=steps - warmup_steps,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
