import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class LayerNormalization(layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, faster in half precision.

    PyTorch's kernel computes in float32 for any input type. Keras also converts inputs and outputs,
    which reads and writes twice the memory once more and slows a GPU. CPUs use Keras's layer,
    because PyTorch sums the gradients of the weights in bfloat16 there, wrong by 9%.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        half = self.compute_dtype in ("bfloat16", "float16")
        same = keras.backend.standardize_dtype(inputs.dtype) == self.compute_dtype
        on_torch = keras.backend.backend() == "torch"
        if not on_torch or not half or not same or inputs.device.type == "cpu":
            return super().call(inputs)
        return normalized(inputs, self.gamma, self.beta, self.epsilon)


def normalized(
    inputs: keras.KerasTensor, gamma: keras.KerasTensor, beta: keras.KerasTensor, epsilon: float
) -> keras.KerasTensor:
    """Return PyTorch's LayerNorm over the last axis, in the dtype of the inputs."""
    import torch

    gamma, beta = (ops.cast(x, inputs.dtype) for x in (gamma, beta))
    return torch.nn.functional.layer_norm(inputs, gamma.shape, gamma, beta, epsilon)
