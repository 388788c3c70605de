"""Checks a student and its teacher before distillation."""

import math
from collections.abc import Sequence

import keras

from keras_tokenlearner._checks import check_ints, check_model, check_not_negative
from keras_tokenlearner._errors import listed
from keras_tokenlearner.layers import PrefixTokens, TokenFuser, TokenLearner
from keras_tokenlearner.layers.composite import parts_of
from keras_tokenlearner.models import names
from keras_tokenlearner.models.features import with_calls
from keras_tokenlearner.models.head import check_logits
from keras_tokenlearner.models.last_activation import last_activation
from keras_tokenlearner.models.reduction import before_reducer
from keras_tokenlearner.models.state import has_lora, quantization_of
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.training.distillation.answers import features_of


def check_models(
    owner: str, student: keras.Model, teacher: keras.Model, feature_weight: float
) -> None:
    """Raise `ValueError` unless student and teacher have the same input and output shapes.

    If the outputs are tokens, (B, N, C), their number N may differ. Both models or neither must
    have a head. Both or neither must end in a sigmoid. The shapes of the features must be equal,
    unless `feature_weight` is 0.
    """
    check_not_negative(owner, "feature_weight", feature_weight)
    before_reducer(owner, student)
    check_model(owner, "teacher", teacher, functional=True)
    tokens = len(student.output_shape) == 3
    found, wanted = student.output_shape, teacher.output_shape
    same = found[::2] == wanted[::2] if tokens and len(wanted) == 3 else found == wanted
    if teacher.input_shape != student.input_shape or not same:
        raise ValueError(
            f"{owner}: `student` and `teacher` must have the same input and output shapes. "
            f"Received: inputs {student.input_shape} and {teacher.input_shape}, outputs "
            f"{student.output_shape} and {teacher.output_shape}"
        )
    models = {"student": student, "teacher": teacher}
    heads = [check_logits(owner, name, model) is not None for name, model in models.items()]
    activations = [last_activation(model)[0] for model in models.values()]
    if len(set(heads)) > 1 or len({activation == "sigmoid" for activation in activations}) > 1:
        raise ValueError(
            f"{owner}: `student` and `teacher` must both end in a sigmoid, or neither. Both or "
            "neither must have a dense layer for the logits; change the last layers of a model. "
            f"Received: activations {activations[0]} and {activations[1]}, with a dense layer: "
            f"{heads[0]} and {heads[1]}"
        )
    if feature_weight:
        _check_features(owner, student, teacher, tokens)


def _check_features(owner: str, student: keras.Model, teacher: keras.Model, tokens: bool) -> None:
    """Raise `ValueError` unless the features of student and teacher have the same shape.

    If the outputs are tokens, the numbers of prefix tokens must be equal too.
    """
    prefix = Structure(owner, student).num_prefix_tokens
    shapes = [features_of(model, prefix).output_shape for model in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{owner}: the features of `student` and `teacher` must have the same shape. Pass the "
            "ViT that the student was made from, or feature_weight=0. "
            f"Received: features of shapes {shapes[0]} and {shapes[1]}"
        )
    parts = [part for _, part, _ in parts_of(teacher)]
    of_teacher = sum(part.num_tokens for part in parts if isinstance(part, PrefixTokens))
    # Other ViTs may have prefix tokens in layers of their own.
    is_known = of_teacher or names.are_of_a_model(part.name for part in parts)
    if tokens and is_known and of_teacher != prefix:
        raise ValueError(
            f"{owner}: `student` and `teacher` must have the same number of prefix tokens. Pass "
            "the ViT that the student was made from, or feature_weight=0. "
            f"Received: {prefix} and {of_teacher} prefix tokens"
        )


def check_copied(teacher: keras.Model) -> None:
    """Raise `ValueError` if the weights of a teacher cannot be copied."""
    if has_lora(teacher):
        raise ValueError(
            "Distiller: `teacher` must have no LoRA weights; merge them with save_weights, and "
            "load the file into a new teacher. "
            f"Received: teacher {teacher.name!r} with LoRA enabled"
        )
    quantization = quantization_of(teacher)
    if quantization:
        raise ValueError(
            "Distiller: `teacher` must have float weights; pass the teacher from before "
            f"`quantize`. Received: teacher {teacher.name!r}, quantized to {quantization}"
        )


def ends_in_sigmoid(model: keras.Model) -> bool:
    """Return whether a model ends in a sigmoid, so each class has a probability of its own."""
    return last_activation(model)[0] == "sigmoid"


def blocks_behind(layout: Structure, student: keras.Model, teacher: keras.Model) -> list[str]:
    """Return the names of the student's blocks after the reducer, which run on fewer tokens.

    Raises:
        ValueError: If the student has fusers, or no blocks after the reducer. Also if the teacher
            lacks one of these blocks. Also if a teacher's block does not output all tokens, with as
            many channels as the student's block.
    """
    if layout.fusers:
        raise ValueError(
            "Distiller: `reconstruction_weight` must be 0 for a student with fusers, which "
            f"restore all tokens after each block. Received: student {student.name!r}"
        )
    before = {layer.name for layer in before_reducer("Distiller", student).layers}
    found = [layer.name for layer in student.layers if layer.name not in before]
    blocks = [name for name in found if names.block_index(name) is not None]
    if not blocks:
        raise ValueError(
            "Distiller: `reconstruction_weight` must be 0 for a student without blocks after the "
            f"TokenLearner. Received: student {student.name!r}"
        )
    tokens = layout.num_prefix_tokens + math.prod(layout.grid)
    _, calls = with_calls(teacher)
    for name in blocks:
        wanted = (tokens, student.get_layer(name).output.shape[-1])
        has = calls[name].outputs.shape[1:] if name in calls else None
        if has != wanted:
            raise ValueError(
                "Distiller: `reconstruction_weight` must be 0, unless `teacher` has the student's "
                "blocks with all tokens. Pass the ViT that the student was made from. Received: "
                f"{name} with output {has} instead of {wanted}"
            )
    return blocks


def part_behind(student: keras.Model, teacher: keras.Model, behind: str | None) -> keras.Model:
    """Return the part of the teacher that takes the output of the layer `behind` as its input.

    With `behind=None`, the part is the whole teacher. The part shares the teacher's layers.

    Raises:
        ValueError: If `behind` is not a layer of both models, or not before the reducer of the
            student. Also if later layers need more than the output of this layer. Also if the
            shapes of this output differ in student and teacher.
    """
    if behind is None:
        return keras.Model(teacher.input, teacher.output, name=teacher.name)
    before = {layer.name for layer in before_reducer("Distiller", student).layers}
    if behind not in before or behind not in {layer.name for layer in teacher.layers}:
        raise ValueError(
            "Distiller: `behind` must name a layer of both student and teacher. In the student, "
            f"this layer must come before the reducer. Received: behind={behind!r}"
        )
    parts = []
    for name, model in (("student", student), ("teacher", teacher)):
        whole, calls = with_calls(model)
        start = calls[behind].outputs if behind in calls else whole.input
        try:
            parts.append(keras.Model(start, whole.output, name=model.name))
        except ValueError as error:  # Keras finds no path to the output
            raise ValueError(
                f"Distiller: `behind` must be None for this `{name}`. Its later layers also need "
                "other outputs of earlier layers, such as a table of rotary positions. "
                f"Received: behind={behind!r}, {name} {model.name!r}"
            ) from error
    shapes = [part.input_shape for part in parts]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "Distiller: `behind` must be a layer whose outputs have the same shape in student and "
            f"teacher. Received: behind={behind!r} with outputs of shapes {shapes[0]} and "
            f"{shapes[1]}"
        )
    return parts[1]


def check_budgets(student: keras.Model, budgets: Sequence[int]) -> tuple[int, ...]:
    """Return the budgets as integers, or raise `ValueError` if the student cannot use them."""
    learners = [layer for layer in student.layers if isinstance(layer, TokenLearner)]
    budgets = check_ints("Distiller", "budgets", budgets)
    most = min((layer.num_tokens for layer in learners if layer.position_bias), default=0)
    if not budgets or max(budgets) > most or not all(layer.position_bias for layer in learners):
        raise ValueError(
            "Distiller: `budgets` must not exceed the number of tokens of `student`, and each "
            "TokenLearner must start from a grid. Pass smaller numbers, or use "
            f'retrofit(..., token_start="grid"). Received: budgets={budgets} for '
            f"{student.name!r}, with {most} tokens that start from a grid"
        )
    fusers = [layer.name for layer in student.layers if isinstance(layer, TokenFuser)]
    if fusers:  # their weights mix a fixed number of tokens
        raise ValueError(
            "Distiller: `budgets` needs a student without TokenFuser; pass fuser='unpool' or "
            f"fuser='reproject' to retrofit. Received: budgets={budgets} with {listed(fusers)}"
        )
    found = [path for path, part, _ in parts_of(student) if _changes(part)]
    # A layer that contains one of these layers is also in the list.
    changing = [path for path in found if not any(x.startswith(f"{path}/") for x in found)]
    if changing and keras.backend.backend() == "jax":
        raise ValueError(
            "Distiller: on JAX, `budgets` needs a student without dropout, random layers, "
            "trainable BatchNormalization or activity regularizers. Set dropout rates to 0, freeze "
            "BatchNormalization, and remove the other listed layers and regularizers. "
            f"Received: budgets={budgets} with {listed(changing)}"
        )
    return budgets


def _changes(part: keras.Layer) -> bool:
    """Return whether a layer changes its state in a training step.

    On JAX, the branches of `keras.ops.switch` must not change state. The state of a random
    generator is in `variables`, but not in `weights`.
    """
    if isinstance(part, keras.layers.BatchNormalization) and part.trainable:
        return True
    random = len(part.variables) > len(part.weights)
    spectral = isinstance(part, keras.layers.SpectralNormalization)  # changes also if frozen
    return random or spectral or part.activity_regularizer is not None
