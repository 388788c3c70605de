"""Models of this package as backbones for keras-hub (extra `hub`)."""

import functools
from typing import Any, Unpack

import keras

from keras_tokenlearner._checks import own_errors
from keras_tokenlearner._extras import require
from keras_tokenlearner._json import JSON
from keras_tokenlearner.applications.arguments import BackboneArguments, BodyArguments
from keras_tokenlearner.applications.create import create_model
from keras_tokenlearner.models import names
from keras_tokenlearner.models.vision_model import Policy


@own_errors
def hub_backbone(model: str, **arguments: Unpack[BackboneArguments]) -> keras.Model:
    """Return a model of the catalogue as a backbone for `keras_hub.models.ImageClassifier`.

    The backbone returns the average of the tokens, as (B, 1, 1, C), which the classifier's pooling
    does not change. Before you load a saved classifier, call this function once: the call registers
    the class of the backbone.

    Args:
        model: Name in the catalogue, of a model for images.
        **arguments: Arguments of `create_model`, such as `input_shape` and `weights`, as JSON
            values.

    Returns:
        A `keras_hub.models.Backbone`.

    Raises:
        ImportError: If keras-hub is not installed.
    """
    return _hub_backbone_class()(model, **arguments)


@functools.cache
def _hub_backbone_class() -> type[keras.Model]:
    keras_hub: Any = require("keras_hub", "hub")

    @keras.saving.register_keras_serializable(package="keras_tokenlearner")
    class HubBackbone(keras_hub.models.Backbone):
        def __init__(
            self,
            model: str,
            dtype: Policy = None,
            name: str | None = None,
            trainable: bool = True,
            **arguments: Unpack[BodyArguments],
        ) -> None:
            body = create_model(model, include_top=False, pooling="avg", dtype=dtype, **arguments)
            features = keras.layers.Reshape(
                (1, 1, body.output_shape[-1]), dtype=dtype, name=names.FEATURES
            )
            super().__init__(
                inputs=body.input,
                outputs=features(body.output),
                dtype=dtype,
                name=name or model,
                trainable=trainable,
            )
            self.model, self.arguments = model, arguments

        def get_config(self) -> dict[str, JSON]:
            without_weights = {key: x for key, x in self.arguments.items() if key != "weights"}
            return {**super().get_config(), "model": self.model, **without_weights}

    return HubBackbone
