"""Checks a student and its teacher before distillation."""

from collections.abc import Sequence

import keras

from keras_tokenlearner._checks import check_ints, check_model
from keras_tokenlearner._errors import listed
from keras_tokenlearner.layers import TokenFuser, TokenLearner
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import FUSERS
from keras_tokenlearner.models.head import check_logits
from keras_tokenlearner.models.last_activation import last_activation
from keras_tokenlearner.models.reduction import before_reducer
from keras_tokenlearner.models.structure import Structure


def check_models(owner: str, student: keras.Model, teacher: keras.Model) -> None:
    """Raise `ValueError` unless student and teacher have the same input and output shapes.

    If the outputs are tokens, (B, N, C), their number N may differ. Both models or neither must
    have a head. Both or neither must end in a sigmoid.
    """
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


def ends_in_sigmoid(model: keras.Model) -> bool:
    """Return whether a model ends in a sigmoid, so each class has a probability of its own."""
    return last_activation(model)[0] == "sigmoid"


def blocks_behind(layout: Structure, student: keras.Model) -> list[str]:
    """Return the names of the student's blocks after the reducer, which run on fewer tokens."""
    if any(layout.numbered(kind) for kind in FUSERS):
        raise ValueError(
            "Distiller: `reconstruction_weight` must be 0 for a student with fusers, which "
            f"restore all tokens after each block. Received: student {student.name!r}"
        )
    before = {layer.name for layer in before_reducer("Distiller", student).layers}
    found = [layer.name for layer in student.layers if layer.name not in before]
    return [name for name in found if names.block_index(name) is not None]


def check_behind(student: keras.Model, teacher: keras.Model, behind: str | None) -> None:
    """Raise `ValueError` unless `behind` is a layer of both models, before the reducer."""
    if behind is None:
        return
    before = {layer.name for layer in before_reducer("Distiller", student).layers}
    if behind not in before or behind not in {layer.name for layer in teacher.layers}:
        raise ValueError(
            "Distiller: `behind` must be the name of a layer that student and teacher both have, "
            f"and that precedes the TokenLearner. Received: behind={behind!r}"
        )


def check_budgets(student: keras.Model, budgets: Sequence[int]) -> tuple[int, ...]:
    """Return the budgets as integers, or raise `ValueError` if the student cannot use them."""
    learners = [layer for layer in student.layers if isinstance(layer, TokenLearner)]
    budgets = check_ints("Distiller", "budgets", budgets)
    most = min((layer.num_tokens for layer in learners if layer.position_bias), default=0)
    if not budgets or max(budgets) > most or not all(layer.position_bias for layer in learners):
        raise ValueError(
            "Distiller: `budgets` must not exceed the number of tokens that `student` learns from "
            'a grid. Pass smaller numbers, or use retrofit(..., token_start="grid"). '
            f"Received: budgets={budgets} for {student.name!r}, which has {most} tokens of a grid"
        )
    fusers = [layer.name for layer in student.layers if isinstance(layer, TokenFuser)]
    if fusers:  # their weights mix a fixed number of tokens
        raise ValueError(
            "Distiller: `budgets` needs a student without TokenFuser; pass fuser='unpool' or "
            f"fuser='reproject' to retrofit. Received: budgets={budgets} with {listed(fusers)}"
        )
    dropout = [layer.name for layer in student.layers if getattr(layer, "dropout_rate", 0)]
    if dropout and keras.backend.backend() == "jax":
        raise ValueError(
            "Distiller: on JAX, `budgets` needs a student without dropout, built with "
            f"dropout_rate=0. Received: budgets={budgets} with dropout in {dropout}"
        )
    return budgets
