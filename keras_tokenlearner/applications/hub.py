"""Models of this package as backbones for keras-hub (extra `hub`)."""

import functools
from typing import Any, Unpack

import keras

from keras_tokenlearner._checks import check_bool
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._extras import require
from keras_tokenlearner._json import JSON
from keras_tokenlearner.applications.arguments import BodyArguments, ModelArguments
from keras_tokenlearner.applications.create import create_model
from keras_tokenlearner.models import names
from keras_tokenlearner.models.state import freeze_parts, frozen_parts
from keras_tokenlearner.models.vision_model import Policy


@own_errors
def hub_backbone(
    model: str,
    dtype: str | None = None,
    name: str | None = None,
    trainable: bool = True,
    **arguments: Unpack[BodyArguments],
) -> keras.Model:
    """Return a model of the catalogue as a backbone for `keras_hub.models.ImageClassifier`.

    The backbone returns the average of the tokens, as (B, 1, 1, C), which the classifier's pooling
    does not change. Before you load a saved classifier, call this function once: the call registers
    the class of the backbone.

    Args:
        model: Name in the catalogue, of a model for images.
        dtype: Name of the dtype policy. Defaults to the global policy.
        name: Name of the backbone. Defaults to `model`.
        trainable: Boolean, whether `fit` trains the backbone.
        **arguments: Other arguments of `create_model`, such as `input_shape` and `weights`.

    Returns:
        A `keras_hub.models.Backbone`.

    Raises:
        ImportError: If keras-hub is not installed.
        ValueError: If the name is unknown, or an argument does not suit the model.
    """
    check_bool("hub_backbone", "trainable", trainable)
    refused = ModelArguments.__annotations__.keys() - BodyArguments.__annotations__.keys()
    for argument, value in arguments.items():
        if argument in refused:
            raise ValueError(
                f"hub_backbone: leave out `{argument}`, because the backbone has no classifier and "
                f"returns averages. Received: {argument}={value!r}"
            )
    body = create_model(model, include_top=False, pooling="avg", dtype=dtype, **arguments)
    return hub_backbone_class()(body, dtype, name, trainable)


@functools.cache
def hub_backbone_class() -> type[keras.Model]:
    """Register the class of the backbones with Keras, and return the class."""
    keras_hub: Any = require("keras_hub", "hub")

    @keras.saving.register_keras_serializable(package="keras_tokenlearner")
    class HubBackbone(keras_hub.models.Backbone):
        def __init__(
            self,
            body: keras.Model | dict[str, Any],
            dtype: Policy = None,
            name: str | None = None,
            trainable: bool = True,
            frozen: dict[str, bool] | None = None,
        ) -> None:
            if isinstance(body, dict):  # the config of a saved backbone
                config = dict(body["config"])
                if dtype is not None:
                    policy = keras.dtype_policies.get(dtype)
                    config["dtype"] = keras.dtype_policies.serialize(policy)
                body = keras.saving.deserialize_keras_object({**body, "config": config})
            # The weights can decide settings of the model. The config therefore has all settings.
            saved = keras.saving.serialize_keras_object(body)
            features = keras.layers.Reshape(
                (1, 1, body.output_shape[-1]), dtype=body.dtype_policy, name=names.FEATURES
            )
            super().__init__(
                inputs=body.input,
                outputs=features(body.output),
                dtype=dtype or body.dtype_policy,
                name=name or body.name,
            )
            self.body = saved
            # The constructor of Keras sets `trainable` before the model has layers.
            self.trainable = trainable
            if frozen:  # the config of a saved backbone
                freeze_parts(self, trainable, frozen)

        def get_config(self) -> dict[str, JSON]:
            return {**super().get_config(), "body": self.body, "frozen": frozen_parts(self)}

    return HubBackbone
