"""The folder of a model for NVIDIA's Triton, read by Triton's own schema."""

import functools
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from keras_tokenlearner.serving.formats import FORMATS
from keras_tokenlearner.serving.triton import new_triton_files, triton_config
from tests.skips import peer

pytestmark = [pytest.mark.once("torch"), pytest.mark.peers]
OPTIONS = {"class_names": None, "top_k": 3, "return_maps": False, "activation": "softmax"}
OPTIONS |= {"is_applied": False, "frame_step": None, "provenance": None, "precision": None}
OPTIONS |= {"preprocessing": None}


@functools.cache
def schema():
    """Load one file of Triton's client. Messages in its other files clash with KServe's."""
    file = Path(peer("tritonclient").__file__).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(text):
    config = schema().ModelConfig()
    from google.protobuf import text_format

    return text_format.Parse(text, config)


def test_triton_config_is_valid_in_the_schema_of_triton():
    model = create_model("tokenlearner_pico8_4at1", classes=7)
    options = OPTIONS | {"class_names": list("abcdefg"), "return_maps": True}
    config = parsed(triton_config(model, 'tulip "é"', options))
    assert (config.name, config.backend) == ('tulip "é"', "onnxruntime")
    assert config.HasField("dynamic_batching") and config.max_batch_size == 32
    (image,) = config.input
    assert (image.name, image.data_type, list(image.dims)) == ("images", 2, [32, 32, 3])
    outputs = {found.name: (found.data_type, list(found.dims)) for found in config.output}
    assert outputs == {
        "probabilities": (11, [7]),
        "top_classes": (8, [3]),
        "top_probabilities": (11, [3]),
        "token_maps": (11, [4, 4, 4]),
    }
    assert [found.label_filename for found in config.output] == ["labels.txt", "", "", ""]
    for sample in config.model_warmup:
        found = sample.inputs["images"]
        assert found.zero_data and list(found.dims) == [32, 32, 3] and found.data_type == 2
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]


def test_triton_config_of_features_has_no_labels():
    model = create_model("vit_pico8", include_top=False)
    config = parsed(triton_config(model, "features", OPTIONS | {"activation": "linear"}))
    (output,) = config.output
    assert (output.name, output.label_filename) == ("features", "")
    assert list(output.dims) == list(model.output_shape[1:])


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("dynamic_batching { }", "dynamic_batching {\n  # ] {\n}"),
        lambda text: text.replace("max_batch_size: 32", "max_batch_size: 8"),
        lambda text: text.replace(" dims: [ 32, 32, 3 ]", "\n  dims: [32, 32,3],\n  # pixels\n"),
        lambda text: text + 'parameters { key: "input" value { string_value: "[" } }\n',
        lambda text: re.sub(r"(?m)^input .*\n", "", text),
        lambda text: text[: text.index("input [")],
        lambda text: text.replace('name: "images"', 'name: "images" format: FORMAT_NHWC'),
        lambda text: re.sub(r"(data_type: \w+) (dims: \[.*?\])", r"\2 \1", text),
        lambda text: text.replace("dims: [ 2 ]", "dims: 2").replace("[ 32,", "32, dims: ["),
        lambda text: text.replace('"images"', "'images'"),
        lambda text: text.replace("input [ {", "input {").replace("} ]\noutput", "};\noutput"),
        lambda text: re.sub(r"(?m)^(  { name: .prob.*),\n(.*),$", r"\2,\n\1,", text),
        lambda text: text.replace(' label_filename: "labels.txt"', ""),
    ],
    ids=[
        *("batching", "batch size", "layout", "parameters", "no input", "no tensors", "format"),
        *("order of fields", "repeated dims", "quotes", "one input", "order of outputs", "labels"),
    ],
)
def test_triton_files_of_a_second_export_leave_an_edited_config_unchanged(edit, tmp_path):
    model, options = create_model("vit_pico8", classes=2), OPTIONS | {"class_names": ["a", "b c"]}
    files = new_triton_files(model, tmp_path, options)
    assert list(files) == ["labels.txt", "config.pbtxt"]
    edited = edit(files["config.pbtxt"])
    assert edited != files["config.pbtxt"]
    if importlib.util.find_spec("tritonclient"):
        parsed(edited)
    (tmp_path / "config.pbtxt").write_text(edited)
    assert list(new_triton_files(model, tmp_path, options)) == ["labels.txt"]
    (tmp_path / "labels.txt").write_text(files["labels.txt"])
    assert new_triton_files(model, tmp_path, options) == {}


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"class_names": ["a", "c"]}, "labels.txt"),
        ({"top_k": 1}, "config.pbtxt"),
        ({"activation": "linear", "class_names": None}, "config.pbtxt"),
        ({"class_names": None}, "config.pbtxt"),
    ],
)
def test_triton_export_of_another_model_than_the_existing_files_describe_raises_before_work(
    changes, file, tmp_path, monkeypatch
):
    module = sys.modules[export.__module__]
    monkeypatch.setattr(type(FORMATS["onnx"]), "check_installed", lambda self: None)
    monkeypatch.setattr(module, "write", lambda *arguments: pytest.fail("the export begins"))
    model, options = create_model("vit_pico8", classes=2), OPTIONS | {"class_names": ["a", "b"]}
    for name, text in new_triton_files(model, tmp_path, options).items():
        (tmp_path / name).write_text(text)
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*"))]
    arguments = {"class_names": ["a", "b"], "top_k": 3, "activation": None} | changes
    arguments["classifier_activation"] = arguments.pop("activation")
    if arguments["classifier_activation"] == "linear":
        model = create_model("vit_pico8", classes=2, classifier_activation=None)
    with pytest.raises(ValueError, match=f"export: {file} in `path` .*path='"):
        export(model, tmp_path, format="onnx", layout="triton", **arguments)
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*"))] == before


def test_triton_layout_has_versions_of_the_onnx_file(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="of the extra `formats`")
    pytest.importorskip("onnxscript", reason="of the extra `formats`")
    model = create_model("vit_pico8", classes=2)
    path = tmp_path / "pets"
    for version in "12":
        made = export(model, path, ["cat", "dög"], format="onnx", layout="triton")
        assert made.path == path / version and made.max_difference < 1e-5
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*"))
    assert names == ["1", "1/model.onnx", "2", "2/model.onnx", "config.pbtxt", "labels.txt"]
    assert (path / "labels.txt").read_text(encoding="utf-8") == "cat\ndög\n"
    session = onnxruntime.InferenceSession(path / "2" / "model.onnx")
    config = parsed((path / "config.pbtxt").read_text(encoding="utf-8"))
    images = np.zeros((3, *config.input[0].dims), "uint8")
    found = session.run([output.name for output in config.output], {"images": images})
    assert [list(x.shape[1:]) for x in found] == [list(output.dims) for output in config.output]


def test_triton_layout_of_pt2_and_an_unknown_layout_raise(tmp_path):
    with pytest.raises(ValueError, match="format='pt2'"):
        export(create_model("vit_pico8", classes=2), tmp_path / "x", format="pt2", layout="triton")
    with pytest.raises(ValueError, match="layout='kserve'"):
        export(create_model("vit_pico8", classes=2), tmp_path / "x", layout="kserve")
    assert not list(tmp_path.iterdir())
