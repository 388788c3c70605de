"""The formats of a trained model: code that writes each, and runs it without this package."""

import numpy as np


def keras_file(model, path, shape):
    """The `.keras` file itself. Other formats are compared with it."""
    import keras

    model.save(path / "model.keras")
    loaded = keras.saving.load_model(path / "model.keras", compile=False)
    return lambda images: loaded.predict_on_batch(images)


def saved_model(model, path, shape):
    """TensorFlow's SavedModel. From torch, another process writes it."""
    import tensorflow as tf

    from keras_tokenlearner import export

    loaded = tf.saved_model.load(str(export(model, path / "served", check=False).path))
    return lambda images: loaded.serve(images).numpy()


def onnx(model, path, shape):
    """ONNX, run by onnxruntime."""
    import onnxruntime

    file = str(path / "model.onnx")
    model.export(file, format="onnx", input_signature=_signature(shape), verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def openvino(model, path, shape):
    """OpenVINO, at full precision."""
    import openvino

    file = str(path / "model.xml")
    model.export(file, format="openvino", input_signature=_signature(shape), verbose=False)
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # without this hint, outputs differ by 1e-2
    compiled = openvino.Core().compile_model(file, "CPU", options)
    return lambda images: compiled(images)[0]


def litert(model, path, shape):
    """LiteRT, formerly TensorFlow Lite."""
    from ai_edge_litert.interpreter import Interpreter

    file = str(path / "model.tflite")
    model.export(file, format="litert", input_signature=_signature(shape), verbose=False)
    interpreter = Interpreter(model_path=file)
    place = interpreter.get_input_details()[0]["index"]

    def run(images):
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(place, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def torch_export(model, path, shape):
    """torch's `.pt2`."""
    import torch

    file = str(path / "model.pt2")
    options = {"input_signature": _signature(shape), "verbose": False}
    if shape[0] is None:  # otherwise the batch size is fixed at one
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    model.export(file, format="torch", **options)
    loaded = torch.export.load(file).module()

    def run(images):
        with torch.no_grad():
            return loaded(torch.from_numpy(images)).numpy()

    return run


def int8(model, path, shape):
    """`model.quantize("int8")` for Dense, EinsumDense and attention, run by Keras."""
    model.quantize("int8")
    model.save_weights(path / "model.weights.h5")
    return lambda images: model.predict_on_batch(images)


def left_in_float(model):
    """Describe which share of a quantized model is integers, and which kernels are floats."""
    sizes = {"integer": 0, "float": 0}
    kept = []
    for weight in model.weights:
        kind = "integer" if "int" in str(weight.dtype) else "float"
        sizes[kind] += int(np.prod(weight.shape))
        if (
            kind == "float"
            and len(weight.shape) > 1
            and not weight.path.endswith(("_scale", "bias"))
        ):
            kept.append(weight.path)
    share = sizes["integer"] / sum(sizes.values())
    return f"{share:.0%} of the numbers are integers; float: {' '.join(kept)}"


def _signature(shape):
    import keras

    return [keras.InputSpec(shape=shape, dtype="float32")]


KINDS = {
    "keras": keras_file,
    "saved_model": saved_model,
    "onnx": onnx,
    "openvino": openvino,
    "litert": litert,
    "torch": torch_export,
    "int8": int8,
}
