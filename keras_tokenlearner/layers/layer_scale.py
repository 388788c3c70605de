import keras

from keras_tokenlearner._checks import check_channels, check_positive
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class LayerScale(CompositeLayer):
    """Multiplies each channel by a learned factor, `y[..., c] = gamma[c] x[..., c]`.

    Args:
        initial_value: Float, initial value of every factor. Small values (1e-5) help to train deep
            transformers such as DINOv2.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (..., C).

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If `initial_value` is not positive, or C is not known.

    Example:

    >>> x = keras.random.normal((2, 5, 16))
    >>> tuple(LayerScale(1e-5)(x).shape)
    (2, 5, 16)

    Source: Touvron et al., "Going deeper with Image Transformers", 2021.
    """

    def __init__(
        self, initial_value: float = 1e-5, **kwargs: str | bool | keras.DTypePolicy | None
    ) -> None:
        super().__init__(**kwargs)
        self.initial_value = check_positive("LayerScale", "initial_value", initial_value)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        self.gamma = self.add_weight(
            shape=(check_channels("LayerScale", inputs_shape),),
            initializer=keras.initializers.Constant(self.initial_value),
            name="gamma",
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs * self.gamma

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "initial_value": self.initial_value}
