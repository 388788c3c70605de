"""Keras's optimizers with a learning rate for each depth of a transformer.

`keras.optimizers.MultiOptimizer` is not used. Its optimizers, one for each depth, would clip by the
norm of their own gradients, not of all gradients.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import keras

from keras_tokenlearner._checks import check_positive_fraction
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.config_fields import REDUCERS
from keras_tokenlearner.models.names import block_index, layer_number
from keras_tokenlearner.training.weight_decay import OptimizerArguments, Rate

if TYPE_CHECKING:
    from keras.optimizers import Optimizer as _Optimizer
else:
    _Optimizer = object


class _Layerwise(_Optimizer):
    """Mixin for a Keras optimizer: variables near the input have lower learning rates.

    At `n` depths before the last depth, the learning rate is multiplied by `layer_decay ** n`.
    This class also applies decoupled weight decay, scaled in the same way, because Keras has one
    rate for all variables. Gradient clipping, gradient accumulation and weight averages are
    unchanged.

    Args:
        learning_rate: Learning rate of the last depth, or its schedule.
        layer_decay: Float in (0, 1], the rate of a block divided by the rate of the next block.
        undecayed: Strings. Variables with one of these strings in their name have no weight decay.
        **arguments: Other arguments of the optimizer.

    Raises:
        ValueError: If `layer_decay` is out of range, or the model has no blocks.
    """

    # Arguments of Keras's own decay, which `__init__` sets to `None`.
    decays_of_keras: tuple[str, ...] = ("weight_decay",)

    def __init__(
        self,
        learning_rate: Rate,
        layer_decay: float,
        undecayed: Sequence[str] = (),
        **arguments: Unpack[OptimizerArguments],
    ) -> None:
        layer_decay = check_positive_fraction(type(self).__name__, "layer_decay", layer_decay)
        super().__init__(learning_rate, **{**arguments, **dict.fromkeys(self.decays_of_keras)})
        self.layer_decay = layer_decay
        self.decay = arguments.get("weight_decay")
        self.undecayed = tuple(undecayed)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        with errors_of(type(self).__name__):
            depths = depths_of([variable.path for variable in variables])
        self.factors = tuple(self.layer_decay ** (max(depths) - depth) for depth in depths)
        self.decays = tuple(
            None if any(text in variable.name for text in self.undecayed) else self.decay
            for variable in variables
        )

    def update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        learning_rate: keras.KerasTensor,
    ) -> None:
        index = self._get_variable_index(variable)
        learning_rate = learning_rate * self.factors[index]
        if self.decays[index]:
            decay = keras.ops.cast(learning_rate * self.decays[index], variable.dtype)
            self.assign_sub(variable, keras.ops.multiply(variable, decay))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "layer_decay": self.layer_decay,
            "weight_decay": self.decay,
            "undecayed": list(self.undecayed),
        }


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class LayerwiseAdamW(_Layerwise, keras.optimizers.Adam):
    """Keras's Adam with decoupled weight decay (AdamW), and a learning rate for each depth."""


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):
    """Keras's SGD with a learning rate for each depth."""


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class LayerwiseMuon(_Layerwise, keras.optimizers.Muon):
    """Keras's Muon with a learning rate for each depth.

    Variables that use Muon and variables that use AdamW have the same weight decay.
    """

    decays_of_keras = ("weight_decay", "adam_weight_decay")


def depths_of(paths: Sequence[str]) -> list[int]:
    """Return the depth of the layer of each variable, counted from the input.

    Layers before the blocks have depth 0. Block `i` has depth `i + 1`. Reducers, fusers and rotary
    layers with the number `i` have the same depth as block `i`. Numbers in the names of other
    layers have no effect. A reducer without a number has the depth of the block before it. This
    block may be frozen and have no path. Other layers between two blocks have the depth of the
    earlier block. Norm and head have the last depth.

    Args:
        paths: Paths of variables, such as `"block_0/mlp/hidden/kernel"`, in the order of the
            model's layers.

    Returns:
        List of integers.

    Raises:
        ValueError: If no variable belongs to a block.

    Example:

    >>> depths_of(["embedding/kernel", "block_0/mlp", "token_learner/norm", "block_1/mlp", "head"])
    [0, 1, 1, 2, 3]
    """
    numbers = [layer_number(path) for path in paths]
    if all(block_index(path) is None for path in paths):
        raise ValueError(
            "depths_of: `layer_decay` needs a model with layers `block_0` and so on, as in a ViT; "
            f"pass layer_decay=1. Received: {len(paths)} variables, the first are {paths[:3]}"
        )
    depths, last = [0], 0
    for place, (path, number) in enumerate(zip(paths, numbers, strict=True)):
        depth = depths[-1] if number is None else number + 1
        if number is None and path.startswith(REDUCERS):
            behind = (index for index in map(block_index, paths[place:]) if index is not None)
            depth = next(behind, depth)  # the block before `behind` may be frozen
        if number is not None or path.startswith(REDUCERS):
            last = place
        depths.append(depth)
    above = len(paths) - last - 1
    return depths[1 : last + 2] + [max(depths) + 1] * above
