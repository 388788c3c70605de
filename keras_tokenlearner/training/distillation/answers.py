"""What a student learns from its teacher: the parts of a model, as outputs of one more model."""

import keras
from keras import layers

from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.models import names
from keras_tokenlearner.models.head import has_head

PREDICTIONS, LOGITS, FEATURES = "predictions", "logits", "features"


def answers(
    model: keras.Model, num_prefix_tokens: int, blocks: list[str], behind: str | None = None
) -> keras.Model:
    """Return a model of the same layers whose outputs are all that distillation compares.

    Args:
        model: A functional model, with a layer `head` or without.
        num_prefix_tokens: Integer, class token and registers.
        blocks: Names of the blocks whose outputs are wanted too.
        behind: Name of the layer whose output the new model takes in place of the model's input.

    Returns:
        A `keras.Model` that gives a dictionary: `predictions`, the model's own output; `features`,
        (B, C), what the head reads, or the output; of a model without head and pooling the first
        tokens and the average of the others, (B, P + 1, C); `logits`, (B, classes), where there is
        a head; and the output of each block, by its name.
    """
    outputs = {PREDICTIONS: model.output, FEATURES: _features(model, num_prefix_tokens)}
    if has_head(model):
        outputs[LOGITS] = model.get_layer(names.HEAD).output
    outputs |= {block: model.get_layer(block).output for block in blocks}
    inputs = model.input if behind is None else model.get_layer(behind).output
    return keras.Model(inputs, outputs, name=f"{model.name}_answers")


def features_of(model: keras.Model, num_prefix_tokens: int) -> keras.Model:
    """Return the part of a model that gives the `features` of `answers`."""
    return keras.Model(model.input, _features(model, num_prefix_tokens))


def _features(model: keras.Model, num_prefix_tokens: int) -> keras.KerasTensor:
    if has_head(model):
        return model.get_layer(names.HEAD).input
    if len(model.output.shape) == 2:
        return layers.Identity(name=FEATURES)(model.output)
    return PrefixAndAverage(num_prefix_tokens, name=FEATURES)(model.output)


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PrefixAndAverage(layers.Layer):
    """Gives the first tokens and the average of the others, (B, P + 1, C) of (B, N, C)."""

    def __init__(self, num_prefix_tokens: int, **kwargs: str) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        prefix = self.num_prefix_tokens
        average = keras.ops.mean(inputs[:, prefix:], axis=1, keepdims=True)
        return keras.ops.concatenate([inputs[:, :prefix], average], axis=1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], self.num_prefix_tokens + 1, shape[2])

    def get_config(self) -> dict[str, str | int | dict]:
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}


def with_budget(model: keras.Model, num_tokens: int) -> keras.Model:
    """Return a model of the same layers whose TokenLearners give their first `num_tokens`."""

    def call(
        layer: keras.Layer, *args: keras.KerasTensor, **kwargs: keras.KerasTensor
    ) -> keras.KerasTensor:
        if isinstance(layer, TokenLearner):
            kwargs = {**kwargs, "num_tokens": num_tokens}
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
