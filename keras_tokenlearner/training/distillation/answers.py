"""Builds models that return all tensors of the distillation loss: logits, features and blocks."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.models import names
from keras_tokenlearner.models.features import Call, with_calls
from keras_tokenlearner.models.head import head_of, logits_of

PREDICTIONS, LOGITS, FEATURES = names.PREDICTIONS, "logits", names.FEATURES


def answers(
    model: keras.Model, num_prefix_tokens: int, blocks: list[str], behind: str | None = None
) -> keras.Model:
    """Return a model that outputs the tensors of the distillation loss.

    The returned model shares the layers of `model`.

    Args:
        model: A functional model, with a classifier or without: see `head_of`.
        num_prefix_tokens: Integer, number of prefix tokens: class token and registers (P).
        blocks: Names of blocks to add to the outputs.
        behind: Name of a layer. The new model takes the output of this layer as its input. `None`
            for the input of `model`.

    Returns:
        A `keras.Model` that returns a dictionary:

        * `predictions`: the output of `model`.
        * `features`: with a head, the input of the head, (B, C). Without a head, the output of
          `model`, (B, C). Without a head, `model` may also output tokens of shape (B, P + N, C).
          Then `features` has shape (B, P + 1, C): the prefix tokens, then the average of the other
          tokens.
        * `logits`: with a head, the output of the head before its activation, (B, classes).
        * The names of `blocks`: the outputs of these blocks.
    """
    head = head_of(model)
    model, calls = with_calls(model)
    call = None if head is None else calls[head.name]
    outputs = {PREDICTIONS: model.output, FEATURES: _features(model, call, num_prefix_tokens)}
    if head is not None:
        logits = logits_of(head, calls[head.name])
        if logits is model.output:
            # Keras cannot cut a model behind a layer if two outputs of the model are one tensor.
            logits = layers.Identity(dtype="float32", name=f"{head.name}_outputs")(logits)
        outputs[LOGITS] = logits
    outputs |= {block: calls[block].outputs for block in blocks}
    # An input layer has no call.
    inputs = calls[behind].outputs if behind in calls else model.input
    return keras.Model(inputs, outputs, name=f"{model.name}_answers")


def features_of(model: keras.Model, num_prefix_tokens: int) -> keras.Model:
    """Return the part of a model whose output is the `features` of `answers`."""
    head = head_of(model)
    model, calls = with_calls(model)
    call = None if head is None else calls[head.name]
    return keras.Model(model.input, _features(model, call, num_prefix_tokens))


def _features(model: keras.Model, call: Call | None, num_prefix_tokens: int) -> keras.KerasTensor:
    """Return the inputs of `call`, the call of the head. Without a head, pool the model outputs."""
    if call is not None:
        return call.inputs
    if len(model.output.shape) == 2:
        return layers.Identity(name=FEATURES)(model.output)
    return PrefixAndAverage(num_prefix_tokens, name=FEATURES)(model.output)


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PrefixAndAverage(layers.Layer):
    """Maps (B, N, C) to (B, P + 1, C): the P prefix tokens and the average of the other tokens."""

    def __init__(self, num_prefix_tokens: int, **kwargs: str) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        prefix = self.num_prefix_tokens
        average = keras.ops.mean(inputs[:, prefix:], axis=1, keepdims=True)
        return keras.ops.concatenate([inputs[:, :prefix], average], axis=1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], self.num_prefix_tokens + 1, shape[2])

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}


def with_budget(model: keras.Model, num_tokens: int) -> keras.Model:
    """Return a model with the same layers. Its TokenLearners return `num_tokens` tokens."""

    def call(
        layer: keras.Layer, *args: keras.KerasTensor, **kwargs: keras.KerasTensor
    ) -> keras.KerasTensor:
        if isinstance(layer, TokenLearner):
            kwargs = {**kwargs, "num_tokens": num_tokens}
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def with_kept_features(
    trained: keras.Model, teacher: keras.Model, features_shape: Sequence[int] | None = None
) -> tuple[keras.Model, keras.Model]:
    """Return student and teacher for `Distiller.of_answers`, with stored features as an input.

    The stored features are the teacher's, so the teacher runs only its head.

    Args:
        trained: The model that `answers` returned for the student.
        teacher: A model, with a classifier or without. Only its head is copied.
        features_shape: Shape of the teacher's features, without the batch axis. Defaults to the
            shape of the student's features.
    """
    x = keras.Input(trained.input_shape[1:], name="x")
    shape = trained.output[FEATURES].shape[1:] if features_shape is None else features_shape
    features = keras.Input(shape, name=FEATURES)
    taught = {FEATURES: layers.Identity(dtype="float32")(features)}
    head = head_of(teacher)
    if head is not None:
        # A copy, so that the teacher's own head stays trainable.
        copy = type(head).from_config({**head.get_config(), "activation": "linear"})
        taught[LOGITS] = copy(features)
        copy.set_weights(head.get_weights())
    found = trained(x)
    return keras.Model([x, features], found), keras.Model([x, features], taught)
