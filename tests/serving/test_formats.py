"""Exported files, each in its own runtime, against the Keras model that they came from."""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export, retrofit
from keras_tokenlearner._extras import library_of
from keras_tokenlearner.analysis import token_maps
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES
from keras_tokenlearner.serving import torch_formats
from keras_tokenlearner.serving.formats import FORMATS
from tests.test_extras import EXTRAS

NAME = "tokenlearner_nano4_8at2"
SIZES = (1, 2, 5)
pytestmark = [pytest.mark.once("torch"), pytest.mark.peers]


def run_onnx(path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="of the extra `formats`")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [found.name for found in session.get_outputs()]
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["class_names"])[9] == "Ankle boot" and texts["preprocessing"]
    metadata = json.loads(texts["keras_tokenlearner"])
    return metadata, lambda x: dict(zip(names, session.run(None, {"images": x}), strict=True))


def run_openvino(path):
    openvino = pytest.importorskip("openvino", reason="of the extra `formats`")
    read = openvino.Core().read_model(path)
    metadata = json.loads(read.get_rt_info(["keras_tokenlearner", "metadata"]).value)
    model = openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return metadata, lambda x: {
        name: value for key, value in model({"images": x}).items() for name in key.names
    }


def run_litert(path):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="of the extra `formats`")
    with zipfile.ZipFile(path) as added:
        metadata = json.loads(added.read("keras_tokenlearner.json"))
        assert added.read("labels.txt").decode().splitlines() == metadata["class_names"]
    runner = litert.Interpreter(str(path)).get_signature_runner()
    return metadata, lambda x: runner(images=x)


def run_pt2(path):
    torch = pytest.importorskip("torch", reason="only on torch: the format is PyTorch's")
    files = {"keras_tokenlearner.json": ""}
    module = torch.export.load(path, extra_files=files).module()
    with torch.no_grad():
        return json.loads(files["keras_tokenlearner.json"]), lambda x: {
            key: value.detach().numpy() for key, value in module(torch.from_numpy(x)).items()
        }


RUN = {"onnx": run_onnx, "openvino": run_openvino, "litert": run_litert, "pt2": run_pt2}


def skip_without(format):
    for module in FORMATS[format].modules:
        pytest.importorskip(module, reason="of the extra `formats`")


@pytest.fixture(scope="module")
def images():
    return load_fashion_mnist()[1][0][: max(SIZES)].reshape(-1, 28, 28, 1)


def check(run, model, images, limit):
    """Compare answers to batches of several sizes with the outputs of a Keras model."""
    right = model.predict(images.astype("float32"), verbose=0)
    for size in SIZES:
        found = run(images[:size])
        np.testing.assert_allclose(found["probabilities"], right[:size], atol=limit)
        np.testing.assert_array_equal(found["top_classes"][:, 0], right[:size].argmax(1))
        best = np.take_along_axis(found["probabilities"], found["top_classes"], 1)
        np.testing.assert_array_equal(found["top_probabilities"], best)
        assert found["top_classes"].shape == (size, 3)
    return found


@pytest.mark.parametrize("format", RUN)
def test_exported_file_in_its_runtime_equals_the_model(format, images, tmp_path):
    skip_without(format)
    model = create_model(NAME, weights="fashion_mnist")
    path = tmp_path / f"clothes{FORMATS[format].suffix}"
    provenance = {"licence": "MIT"}
    exported = export(model, path, top_k=3, return_maps=True, provenance=provenance, format=format)
    metadata, run = RUN[format](path)
    found = check(run, model, images, 1e-4)
    maps = token_maps(model, images.astype("float32"))
    np.testing.assert_allclose(found["token_maps"], maps, atol=1e-4)
    assert exported.path == path and exported.max_difference < 1e-5
    assert metadata["class_names"] == list(model.class_names)
    assert metadata["provenance"] == {"licence": "MIT"}
    assert (metadata["input_shape"], metadata["precision"]) == ([28, 28, 1], "float32")


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_exported_student_with_proportional_attention_equals_the_model(format, tmp_path):
    """The patch bias is a weight of `block_1`, so both students have the same layers."""
    skip_without(format)
    teacher = create_model("vit_pico8", classes=10, class_token=True, class_names=CLASS_NAMES)
    student, plain = (
        retrofit(teacher, at=1, num_tokens=4, proportional_attention=each) for each in (True, False)
    )
    random = np.random.default_rng(0)
    for weight in student.weights:
        weight.assign(random.normal(0, 0.2, weight.shape))
    student.get_layer("block_1").patch_bias.assign(1.5)
    of_plain = [w for w in student.weights if not w.path.endswith("patch_bias")]
    plain.set_weights([keras.ops.convert_to_numpy(weight) for weight in of_plain])
    assert [each.name for each in student.layers] == [each.name for each in plain.layers]
    images = random.integers(0, 256, (max(SIZES), *student.input_shape[1:])).astype("uint8")
    path = tmp_path / f"student{FORMATS[format].suffix}"
    export(student, path, top_k=3, format=format, check=False)
    _, run = RUN[format](path)
    found = check(run, student, images, 1e-5)
    without_bias = plain.predict(images.astype("float32"), verbose=0)
    assert np.abs(found["probabilities"] - without_bias).max() > 1e-3


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_exported_int8_file_agrees_with_the_model_and_is_smaller(format, images, tmp_path):
    skip_without(format)
    model = create_model(NAME, weights="fashion_mnist")
    path = tmp_path / f"clothes{FORMATS[format].suffix}"
    export(model, path, top_k=3, format=format, precision="int8", check=False)
    metadata, run = RUN[format](path)
    check(run, model, images, 2e-2)
    assert metadata["precision"] == "int8"
    assert path.stat().st_size < 0.45 * 4 * model.count_params()


def test_exported_int8_onnx_file_of_a_large_model_is_one_file(images, tmp_path, monkeypatch):
    """PyTorch stores the weights of models above a size in a second file, here of all models."""
    skip_without("onnx")
    from torch.onnx._internal.exporter import _onnx_program

    if not hasattr(_onnx_program, "_LARGE_MODEL_THRESHOLD"):
        pytest.skip("of the extra `formats`: this PyTorch has another name for the size")
    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
    folders = []

    class Folder(tempfile.TemporaryDirectory):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            folders.append(Path(self.name))

    monkeypatch.setattr(torch_formats.tempfile, "TemporaryDirectory", Folder)
    model = create_model(NAME, weights="fashion_mnist")
    sizes = {}
    for precision in (None, "int8"):
        path = tmp_path / str(precision) / "clothes.onnx"
        export(model, path, top_k=3, format="onnx", precision=precision, check=False)
        check(run_onnx(path)[1], model, images, 2e-2 if precision else 1e-4)
        sizes[precision] = [file.name for file in sorted(path.parent.iterdir())]
    assert sizes == {None: ["clothes.onnx", "clothes.onnx.data"], "int8": ["clothes.onnx"]}
    assert len([folder for folder in folders if folder.is_relative_to(tmp_path / "int8")]) == 2


@pytest.mark.parametrize("format", ["openvino", "pt2"])
def test_exported_bfloat16_file_agrees_with_the_model(format, images, tmp_path):
    skip_without(format)
    half = create_model(NAME, weights="fashion_mnist", dtype="mixed_bfloat16")
    path = tmp_path / f"clothes{FORMATS[format].suffix}"
    export(half, path, top_k=3, format=format, check=False)
    metadata, run = RUN[format](path)
    check(run, create_model(NAME, weights="fashion_mnist"), images, 2e-2)
    assert metadata["precision"] == "bfloat16"


def test_exported_video_model_that_ends_in_logits_returns_probabilities(tmp_path):
    video = create_model("tokenlearner_x2plus1d_pico", classes=3, classifier_activation=None)
    random = np.random.default_rng(0)
    video.set_weights([w + random.normal(0, 0.1, w.shape) ** 2 for w in video.get_weights()])
    clips = random.integers(0, 256, (2, *video.input_shape[1:])).astype("uint8")
    exported = export(
        video, tmp_path / "new" / "video.pt2", format="pt2", classifier_activation="sigmoid"
    )
    _, run = run_pt2(exported.path)
    logits = video.predict(clips.astype("float32"), verbose=0)
    right = 1 / (1 + np.exp(-logits.astype("float64")))
    np.testing.assert_allclose(run(clips)["probabilities"], right, atol=1e-5)
    assert [file.name for file in exported.path.parent.iterdir()] == ["video.pt2"]


def test_export_of_a_model_with_nan_weights_raises_and_keeps_the_old_file(tmp_path):
    model = create_model("vit_pico8", classes=2)
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    (tmp_path / "model.pt2").write_text("older")
    with pytest.raises(RuntimeError, match="finite"):
        export(model, tmp_path / "model.pt2", format="pt2")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["older"]


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("model.pt2", {"format": "pt3"}, "format='pt3'"),
        ("model.onnx", {"format": "pt2"}, r"path='.*model\.onnx'"),
        ("model.pt2", {"format": "pt2", "precision": "int4"}, "precision='int4'"),
        ("model.pt2", {"format": "pt2", "precision": "int8"}, "format='pt2'"),
    ],
)
def test_export_to_a_format_with_wrong_arguments_raises(path, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(create_model("vit_pico8", classes=2), tmp_path / path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_export_of_a_bfloat16_model_to_onnx_or_litert_raises(format, tmp_path):
    skip_without(format)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = create_model("vit_pico8", classes=2)
    with pytest.raises(ValueError, match="computes in bfloat16"):
        export(model, tmp_path / f"model{FORMATS[format].suffix}", format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_export_to_a_format_without_its_library_raises_and_names_the_extra(
    format, tmp_path, monkeypatch
):
    chosen = FORMATS[format]
    extra = " ".join(EXTRAS[chosen.extra])
    assert all(library_of(module) in extra for module in chosen.modules)
    model = create_model("vit_pico8", classes=2)
    monkeypatch.setitem(sys.modules, chosen.modules[-1], None)
    with pytest.raises(ImportError, match=f"extra `{chosen.extra}`"):
        export(model, tmp_path / "x", format=format)
