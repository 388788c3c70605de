"""Builds the model of a plan and loads its weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Unpack

from keras_tokenlearner._class_order import check_order
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.models import VisionTransformerConfig
from keras_tokenlearner.models.vision_model import BuildArguments, VisionModel
from keras_tokenlearner.presets.sizes import build_without_weights, check_tables
from keras_tokenlearner.weights.plan import Plan


def head_is_new(
    owner: str, plan: Plan, classes: int | None, class_names: Sequence[str] | None
) -> bool:
    """Return whether a model gets a new classifier instead of the classifier of its checkpoint.

    The projection of CLIP is no classifier.

    Args:
        owner: Name of the function that the user called, for error messages.
        plan: The checkpoint.
        classes: Number of classes that the user passed, or `None`.
        class_names: Names of the classes that the user passed, or `None`.

    Raises:
        ValueError: If `classes` is `None`, and `class_names` has the checkpoint's classes in
            another order. Also if `class_names` is passed without `classes` for a projection.
    """
    if plan.is_projection and class_names is not None and classes is None:
        raise ValueError(
            f"{owner}: `class_names` needs `classes`, because the top of {plan.origin} computes "
            f"embeddings; pass classes={len(class_names)} for a new classifier. "
            "Received: classes=None"
        )
    if classes is not None and (plan.is_projection or classes != plan.classes):
        return True
    known = plan.class_names if len(plan.class_names or ()) == plan.classes else None
    return are_other_classes(owner, plan.origin, known, classes, class_names)


def are_other_classes(
    owner: str,
    origin: str,
    known: Sequence[str] | None,
    classes: int | None,
    class_names: Sequence[str] | None,
) -> bool:
    """Return whether a user passed other classes than the same number of classes of a checkpoint.

    Names without `classes` may be other words for the checkpoint's classes. The model itself
    refuses a wrong number of names.

    Args:
        owner: Name of the function that the user called, for error messages.
        origin: Description of the checkpoint.
        known: Names of the checkpoint's classes, or `None` if they are unknown.
        classes: Number of classes that the user passed, or `None`.
        class_names: Names of the classes that the user passed, or `None`.

    Raises:
        ValueError: If `classes` is `None`, and `class_names` has the checkpoint's classes in
            another order.
    """
    if class_names is None or known is None or len(class_names) != len(known):
        return False
    if classes is None:
        fix = "leave out `class_names`, or also pass `classes` for a new classifier"
        check_order(owner, "class_names", class_names, known, origin, fix)
        return False
    return tuple(class_names) != tuple(known)


def build_model(
    owner: str,
    kind: Callable[..., VisionModel],
    config: VisionTransformerConfig,
    plan: Plan,
    classes: int | None = None,
    **arguments: Unpack[BuildArguments],
) -> VisionModel:
    """Build the model of a plan and load the plan's weights. `classes` decides the classifier.

    `classes=None` loads the checkpoint's classifier. `head_is_new` states when the model gets a new
    classifier. A warning lists the untrained layers.
    """
    include_top, head = arguments.get("include_top", True), "keep"
    if include_top:
        if plan.classes is None and classes is None:
            raise ValueError(
                f"{owner}: {plan.origin} has no classifier; pass `classes` for a new classifier, "
                "or include_top=False for features. Received: classes=None"
            )
        if head_is_new(owner, plan, classes, arguments.get("class_names")):
            head = "reset"
        classes = plan.classes if classes is None else classes
    own = plan.class_names if include_top and head == "keep" else None
    if arguments.get("class_names") is None and own and len(own) == classes:
        arguments["class_names"] = own
    if arguments.get("preprocessing") is None:
        arguments["preprocessing"] = plan.preprocessing
    tensor = arguments.get("input_tensor")
    shape = arguments.get("input_shape") if tensor is None else tensor.shape[1:]
    if shape is not None and None not in shape:
        check_tables(owner, config, shape, plan.num_values)
    if tensor is not None:
        arguments["input_shape"] = None
    number = classes if include_top and classes is not None else 1000
    with errors_of(owner):
        # One array may state a huge size: compare all shapes before the model takes memory.
        plan.fit(build_without_weights(kind, config, number, arguments), head=head)
        model = kind(config, classes=number, **arguments)
        report = plan.load(model, head=head)
    if report.left or report.reset:
        text = str(report)
        if report.reset and number == plan.classes:
            names = "`class_names` differ from the checkpoint's classes"
            top = "the top of the checkpoint computes embeddings"
            text += f"\n  note     {top if plan.is_projection else names}"
        warnings.warn(text, stacklevel=3)
    return model
