"""Builds the model of a plan and loads its weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Unpack

from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.models import VisionTransformerConfig
from keras_tokenlearner.models.vision_model import BuildArguments, VisionModel
from keras_tokenlearner.presets.sizes import build_without_weights, check_tables
from keras_tokenlearner.weights.plan import Plan


def build_model(
    owner: str,
    kind: Callable[..., VisionModel],
    config: VisionTransformerConfig,
    plan: Plan,
    classes: int | None = None,
    **arguments: Unpack[BuildArguments],
) -> VisionModel:
    """Build the model of a plan and load the plan's weights. `classes` decides the classifier.

    `classes=None` loads the checkpoint's classifier. A number that differs from the checkpoint's
    number makes a new classifier. A warning lists the untrained layers.
    """
    include_top, head = arguments.get("include_top", True), "keep"
    if include_top:
        if plan.classes is None and classes is None:
            raise ValueError(
                f"{owner}: {plan.origin} has no classifier; pass `classes` for a new classifier, "
                "or include_top=False for features. Received: classes=None"
            )
        if classes is not None and classes != plan.classes:
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
        warnings.warn(str(report), stacklevel=3)
    return model
