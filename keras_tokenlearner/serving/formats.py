"""The file formats of exported models, and their requirements."""

from dataclasses import dataclass

from keras_tokenlearner._extras import check_installed


@dataclass(frozen=True)
class Format:
    """A file format of exported models.

    Attributes:
        suffix: End of the file's name; empty for a folder.
        backends: The backends of Keras that write the format. On other backends, a second process
            writes the file.
        extra: The extra that installs `modules`.
        modules: Modules that write the file and run it.
        computes_in_half: Boolean, whether the runtime takes models in bfloat16 and float16.
        has_int8: Boolean, whether the format supports 8-bit weights.
    """

    suffix: str
    backends: tuple[str, ...]
    extra: str
    modules: tuple[str, ...]
    computes_in_half: bool = True
    has_int8: bool = False

    def check_installed(self) -> None:
        """Raise `ImportError` if a module is missing. The message names the extra to install."""
        for module in self.modules:
            check_installed(module, self.extra)


FORMATS = {
    "saved_model": Format("", ("tensorflow", "jax"), "tensorflow", ("tensorflow",)),
    "onnx": Format(
        ".onnx",
        ("torch",),
        "onnx",
        ("torch", "onnx", "onnxscript", "onnxruntime"),
        computes_in_half=False,
        has_int8=True,
    ),
    "openvino": Format(".xml", ("torch",), "openvino", ("torch", "openvino")),
    "litert": Format(
        ".tflite",
        ("tensorflow",),
        "litert",
        ("tensorflow", "ai_edge_litert"),
        computes_in_half=False,
        has_int8=True,
    ),
    "pt2": Format(".pt2", ("torch",), "torch", ("torch",)),
}
