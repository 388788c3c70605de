"""Exported models against the model that they came from, in a process without Keras."""

import concurrent.futures
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from keras_tokenlearner.analysis import token_maps
from keras_tokenlearner.data import preprocess_image, resizing
from keras_tokenlearner.layers.activations import gelu_tanh
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.serving import writing
from keras_tokenlearner.serving.formats import FORMATS
from keras_tokenlearner.serving.metadata import METADATA, metadata_of
from keras_tokenlearner.serving.payloads import v2_answer
from keras_tokenlearner.serving.served_model import ServedModel
from keras_tokenlearner.serving.versions import move_to_next_version, newest_version
from keras_tokenlearner.serving.warm_up_records import WARM_UP
from tests.skips import peer

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")

CLASS_NAMES = [f"class {index}" for index in range(7)]


@keras.saving.register_keras_serializable(package="mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


@keras.saving.register_keras_serializable(package="mine")
def halved(x):
    return x / 2


CLIENT = """
import sys
sys.modules["keras"] = None
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
arrays = np.load(sys.argv[2])
files = tf.constant([open(path, "rb").read() for path in sys.argv[4:]])
answers = {f"images/{k}": v for k, v in model.images(arrays["images"]).items()}
answers |= {f"encoded/{k}": v for k, v in model.signatures["serving_default"](files).items()}
answers["serve"] = model.serve(arrays["floats"])
np.savez(sys.argv[3], **{k: v.numpy().astype(str if v.dtype == tf.string else None)
                         for k, v in answers.items()})
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with random weights, its export, and the answers to a client."""
    folder = tmp_path_factory.mktemp("served")
    keras.utils.set_random_seed(0)
    model = create_model(
        "tokenlearner_pico8_4at1", classes=7, input_shape=(32, 48, 3), dropout_rate=0.1
    )
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    path = export(model, folder / "pico", class_names=CLASS_NAMES, top_k=3, check=False).path
    images = random.integers(0, 256, (3, 70, 50, 3)).astype("uint8")
    floats = random.uniform(0, 255, (2, 32, 48, 3)).astype("float32")
    np.savez(folder / "requests.npz", images=images, floats=floats)
    files = [folder / "a.png", folder / "b.jpg"]
    files[0].write_bytes(tf.io.encode_png(images[0]).numpy())
    files[1].write_bytes(tf.io.encode_jpeg(images[1, :40]).numpy())
    subprocess.run(
        [sys.executable, "-c", CLIENT, path, folder / "requests.npz", folder / "out.npz", *files],
        check=True,
    )
    with np.load(folder / "out.npz") as answers:
        return model, path, images, floats, files, dict(answers)


def _expected(model, images, width=48):
    fitted = resizing(32, width)(images.astype("float32"))
    return model.predict(keras.ops.convert_to_numpy(fitted), verbose=0)


def test_export_writes_version_1_with_metadata(exported):
    _, path, *_ = exported
    assert path.name == "1" and (path / "saved_model.pb").is_file()
    metadata = json.loads((path / METADATA).read_text())
    assert metadata["class_names"] == CLASS_NAMES and metadata["input_shape"] == [32, 48, 3]
    assert [found.name for found in path.parent.iterdir()] == ["1"]


def test_serve_signature_outputs_equal_the_outputs_of_the_model(exported):
    model, _, _, floats, _, answers = exported
    np.testing.assert_allclose(answers["serve"], model.predict(floats, verbose=0), atol=1e-5)


def test_signature_named_images_resizes_other_sizes_as_in_training(exported):
    model, _, images, _, _, answers = exported
    expected = _expected(model, images)
    np.testing.assert_allclose(answers["images/probabilities"], expected, atol=1e-5)
    best = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_array_equal(answers["images/top_classes"], best)
    np.testing.assert_allclose(
        answers["images/top_probabilities"], np.take_along_axis(expected, best, 1), atol=1e-5
    )
    assert answers["images/top_class_names"].tolist() == [
        [CLASS_NAMES[k] for k in row] for row in best
    ]


def test_signature_named_encoded_takes_files_of_different_sizes_in_one_batch(exported):
    image_module = pytest.importorskip("PIL.Image", reason="the independent decoder")
    model, _, images, _, files, answers = exported
    decoded = np.asarray(image_module.open(files[1]))
    expected = np.concatenate([_expected(model, images[:1]), _expected(model, decoded[None])])
    np.testing.assert_allclose(answers["encoded/probabilities"], expected, atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="only on tensorflow: slow, and others export equal signatures",
)
def test_saved_model_cli_outputs_equal_the_outputs_of_the_signature(exported, tmp_path):
    """TensorFlow's own tool, with the command of docs/serving.md."""
    _, path, images, _, _, answers = exported
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]
    command += ["--dir", path, "--tag_set", "serve", "--signature_def", "images"]
    command += ["--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path / "answers"]
    subprocess.run(command, check=True)
    for name in ("probabilities", "top_classes"):
        found = np.load(tmp_path / "answers" / f"{name}.npy")
        np.testing.assert_allclose(found, answers[f"images/{name}"], atol=1e-6)


def test_signature_named_encoded_decodes_webp_files(exported):
    image_module = pytest.importorskip("PIL.Image", reason="writes the WebP file")
    model, path, images, *_ = exported
    stream = io.BytesIO()
    image_module.fromarray(images[2]).save(stream, "WEBP", lossless=True)
    served = tf.saved_model.load(str(path))
    answer = served.encoded([stream.getvalue()])
    expected = _expected(model, images[2:])
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


@pytest.mark.once("tensorflow")
def test_second_export_becomes_the_next_version(exported, tmp_path):
    if keras.backend.backend() == "torch":
        pytest.skip("only on tensorflow and jax: torch exports in another process")
    features = create_model("vit_pico8", include_top=False, pooling="avg", input_shape=(32, 32, 1))
    assert export(features, tmp_path, check=False).path.name == "1"
    path = export(features, tmp_path, check=False).path
    assert path.name == "2"
    grey = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1)).astype("uint8")
    served = tf.saved_model.load(str(path))
    content = tf.io.encode_png(grey[0])
    expected = features.predict(grey.astype("float32"), verbose=0)
    np.testing.assert_allclose(served.encoded([content])["features"], expected, atol=1e-4)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (
            lambda: create_model("vit_pico8", classes=7),
            {"class_names": CLASS_NAMES[1:]},
            "`class_names`.* 7 .* 6 names",
        ),
        (lambda: create_model("vit_pico8", classes=7), {"top_k": 0}, "top_k=0"),
        (
            lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]),
            {},
            r"export: .*\(None, 8\)",
        ),
        (lambda: create_model("vit_pico8", classes=7), {"return_maps": True}, "model 'vit_pico8'"),
        (lambda: create_model("vit_pico8", classes=7), {"provenance": {1j}}, "`provenance`.*1j"),
    ],
)
def test_export_with_wrong_arguments_raises_and_writes_nothing(build, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(build(), tmp_path / "model", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once("torch")
def test_export_of_a_saved_model_to_the_path_of_a_file_raises(tmp_path):
    """A forgotten `format` must not make a folder `pets.onnx`."""
    model, taken = create_model("vit_pico8", classes=7), tmp_path / "pets"
    taken.touch()
    for path, wanted in ((tmp_path / "pets.onnx", "format='onnx'"), (taken, "path=.*pets")):
        with pytest.raises(ValueError, match=wanted):
            export(model, path)
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.once("torch")
def test_export_to_the_path_of_one_model_version_raises_and_writes_nothing(tmp_path, monkeypatch):
    """Servers ignore a version inside of a version."""
    monkeypatch.setattr(type(FORMATS["onnx"]), "check_installed", lambda self: None)
    for file in ("pets/1/saved_model.pb", "birds/1/model.onnx"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    model, before = create_model("vit_pico8", classes=2), sorted(tmp_path.rglob("*"))
    triton = {"format": "onnx", "layout": "triton"}
    paths = {"pets/1": {}, "pets/2": {}, "birds/1": triton, "birds/2": triton}
    for path, arguments in paths.items():
        with pytest.raises(ValueError, match=f"export: `path` .*path='.*{path}'"):
            export(model, tmp_path / path, **arguments)
    with pytest.raises(ValueError, match=r"layout='triton'.*path='.*model\.onnx'"):
        export(model, tmp_path / "birds" / "1" / "model.onnx", **triton)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.once("torch")
@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="only on torch: other backends write a SavedModel without a second process",
)
def test_export_by_a_second_process_of_a_model_with_own_classes_raises_and_writes_nothing(tmp_path):
    layers = [Twice(), keras.layers.Flatten(), keras.layers.Dense(2, halved)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Softmax()])
    with pytest.raises(ValueError) as caught:
        export(model, tmp_path / "model")
    for word in ("mine>Twice", "mine>halved", "KERAS_BACKEND=tensorflow", "KERAS_BACKEND=jax"):
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once("torch")
@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="only on torch: other backends write a SavedModel without a second process",
)
@pytest.mark.filterwarnings("ignore:.*includes a `lambda`")
@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (lambda: keras.layers.Dense(2, activation=lambda x: x / 2), "<lambda>"),
        (lambda: keras.layers.Activation(lambda x: x / 2), "<lambda>"),
        (lambda: keras.layers.Lambda(lambda x: x / 2), "<lambda>"),
        (lambda: keras.layers.Dense(2, kernel_initializer=lambda *_, **__: 0.5), "<lambda>"),
        (lambda: keras.layers.Lambda(halved), "mine>halved"),
        (lambda: keras.layers.Lambda(keras.ops.relu), "Lambda"),  # Keras finds only its classes
    ],
    ids=["dense", "activation", "lambda layer", "initializer", "own function", "keras function"],
)
def test_check_classes_of_a_function_that_other_processes_cannot_load_raises(layer, wanted):
    model = keras.Sequential([keras.Input((8,)), layer()])
    with pytest.raises(ValueError, match=f"export: .*model '{model.name}'.*{wanted}"):
        writing.check_classes(model, "saved_model")


@pytest.mark.once("torch")
def test_check_classes_of_models_of_keras_and_this_package_finds_no_own_classes():
    """A second process does not compile the model, so losses may be of any class."""
    ours = create_model("tokenlearner_pico8_4at1", classes=2, activation="gelu_tanh")
    ours.compile(loss=halved)
    inner = keras.layers.Activation(keras.ops.relu)(ours.output)
    outer = keras.Model(ours.input, keras.layers.Dense(2, "softmax", dtype="float32")(inner))
    registered = keras.Sequential([keras.Input((8,)), keras.layers.Lambda(gelu_tanh)])
    video = create_model("tokenlearner_x2plus1d_pico", classes=2)
    for model in (ours, outer, video, registered):
        assert writing.check_classes(model, "saved_model") is None


@pytest.mark.once("tensorflow")
@pytest.mark.parametrize(
    "pack", [lambda x: [x], lambda x: {"scores": x}], ids=["list", "dictionary"]
)
def test_export_of_a_model_whose_output_is_in_a_list_or_dictionary_equals_the_model(
    exported, pack, tmp_path
):
    model, _, images, *_ = exported
    packed = keras.Model(model.inputs, pack(model.output))
    packed.class_names = CLASS_NAMES
    path = export(packed, tmp_path, return_maps=True).path
    served = tf.saved_model.load(str(path))
    answer = served.images(images)
    np.testing.assert_allclose(answer["probabilities"], _expected(model, images), atol=1e-5)
    assert answer["top_class_names"].shape == (3, 5)


@pytest.mark.once("torch")
def test_export_with_numpy_scalars_passes_plain_numbers_to_the_writers(tmp_path, monkeypatch):
    passed = []
    module = sys.modules[export.__module__]
    monkeypatch.setattr(module, "write", lambda *arguments: passed.append(arguments[-1]))
    monkeypatch.setattr(module, "move_to_next_version", lambda written, path: path)
    model = create_model("tokenlearner_x2plus1d_pico", classes=2)
    numbers = {"top_k": np.int64(3), "frame_step": np.float32(0.25), "return_maps": np.True_}
    export(model, tmp_path, **numbers, check=False)
    found = json.loads(json.dumps(passed[0]))
    assert (found["top_k"], found["frame_step"], found["return_maps"]) == (3, 0.25, True)


@pytest.mark.once("torch")
def test_exported_file_with_another_output_shape_than_the_model_raises(tmp_path, monkeypatch):
    """Numpy would broadcast the shapes and find a difference of 0."""
    module = sys.modules[export.__module__]
    monkeypatch.setattr(module, "write", lambda *arguments: None)

    def answer(images):
        return {"probabilities": np.full((1, len(images), 2), 0.5, "float32")}

    monkeypatch.setattr(module, "load_exported", lambda *arguments: answer)
    with pytest.raises(RuntimeError, match=r"\(1, 3, 2\)"):
        export(create_model("vit_pico8", classes=2), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once("torch")
def test_exported_file_with_nan_in_the_second_output_row_raises_and_leaves_no_file(
    tmp_path, monkeypatch
):
    """The check runs one row, then three rows."""
    module = sys.modules[export.__module__]
    model = create_model("vit_pico8", classes=2)

    def answer(images):
        found = model.predict(images.astype("float32"), verbose=0)
        found[1:] = np.nan
        return {"probabilities": found}

    monkeypatch.setattr(module, "write", lambda *arguments: None)
    monkeypatch.setattr(module, "load_exported", lambda *arguments: answer)
    with pytest.raises(RuntimeError, match="export: .*finite.*nan"):
        export(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once("torch")
def test_export_by_a_second_process_keeps_the_attribute_preprocessing_of_a_model(tmp_path):
    """`create_model(input_tensor=x)` sets the attribute. A `.keras` file does not store it."""
    rule = Preprocessing(resize_mode="squash", interpolation="bicubic", crop_fraction=0.8)
    flipped = keras.layers.RandomFlip()(keras.Input((32, 32, 3)))
    named = create_model("vit_pico8", classes=2, preprocessing=rule, input_tensor=flipped)
    pixels = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])
    pixels.preprocessing = named.preprocessing
    path = export(pixels, tmp_path, check=False).path
    metadata = json.loads((path / METADATA).read_text())
    assert Preprocessing(**metadata["resize"]) == rule
    image = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype("uint8")
    found = tf.saved_model.load(str(path)).images(image[None])["features"]
    right = preprocess_image(image, (32, 32, 3), rule).ravel()
    assert np.abs(found[0] - right).max() < 2
    central = keras.ops.convert_to_numpy(resizing(32, 32)(image.astype("float32")))
    assert np.abs(central.ravel() - right).max() > 20  # the resize matters


@pytest.mark.once("tensorflow")
def test_exported_bfloat16_features_are_float32_in_v2_answers(tmp_path):
    model = create_model("vit_pico8", include_top=False, pooling="avg", dtype="mixed_bfloat16")
    served = ServedModel(export(model, tmp_path, check=False).path)
    pixels = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype("float32")
    row = dict.fromkeys(served.inputs["serve"], pixels)
    ((_, kind, found),) = v2_answer(served.answer(served.batch_key("serve", row), [row]))
    assert (kind, found.dtype) == ("FP32", "float32")
    right = keras.ops.cast(model.predict(pixels[None], verbose=0), "float32")
    np.testing.assert_allclose(found, right, rtol=0.05, atol=0.05)


@pytest.mark.once("torch")
def test_metadata_of_a_model_that_fits_the_longest_edge_describe_the_padding():
    preprocessing = Preprocessing(mean=(0.5, 0.2, 0.1), std=(0.5, 0.5, 0.5), resize_mode="longest")
    model = create_model("vit_pico8", classes=2, preprocessing=preprocessing)
    options = {"class_names": None, "activation": "softmax", "frame_step": None}
    options |= {"preprocessing": preprocessing.fields(), "precision": None, "provenance": None}
    found = metadata_of(model, options)
    assert "longest" in found["preprocessing"]
    assert "padded on both sides with the colour [128, 51, 26]" in found["preprocessing"]


def test_export_with_maps_and_provenance_contains_both(tmp_path):
    model = create_model("tokenlearner_pico8_4at1", classes=7)
    provenance = {"weights": "ours", "licence": "Apache-2.0"}
    path = export(model, tmp_path, return_maps=True, provenance=provenance, check=False).path
    metadata = json.loads((path / METADATA).read_text())
    assert metadata["provenance"] == provenance and "resized" in metadata["preprocessing"]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    served = tf.saved_model.load(str(path))
    answer = served.images(images)
    maps = token_maps(model, images.astype("float32"))
    assert maps.shape == (2, 4, 4, 4)
    np.testing.assert_allclose(answer["token_maps"], maps, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], _expected(model, images, 32), atol=1e-5)


@pytest.mark.once("torch")
def test_exports_in_parallel_become_different_versions(tmp_path):
    def move(number):
        written = tmp_path / f".writing-{number}" / "model"
        written.mkdir(parents=True)
        (written / "saved_model.pb").write_text(str(number))
        return move_to_next_version(written, tmp_path)

    with concurrent.futures.ThreadPoolExecutor(8) as exports:
        moved = list(exports.map(move, range(8)))
    assert sorted(path.name for path in moved) == list("12345678")
    for number, path in enumerate(moved):
        assert (path / "saved_model.pb").read_text() == str(number)


def test_simultaneous_exports_to_one_folder_keep_both_versions(tmp_path, monkeypatch):
    """Two threads replace two processes. Both write a file before either chooses a version."""
    meeting = threading.Barrier(2, timeout=60)

    def write(model, path, format, options):
        path.mkdir()
        meeting.wait()
        (path / "saved_model.pb").write_text(str(model.output_shape[-1]))
        meeting.wait()

    monkeypatch.setattr(sys.modules[export.__module__], "write", write)
    models = [create_model("vit_pico8", classes=classes) for classes in (2, 3)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda model: export(model, tmp_path, check=False).path, models))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert [(path / "saved_model.pb").read_text() for path in done] == ["2", "3"]


@pytest.mark.parametrize("step", [1, 2])
def test_openvino_export_killed_between_two_files_leaves_no_mixture(step, tmp_path, monkeypatch):
    """A file of OpenVINO and its weights are replaced one after the other."""
    path, steps = tmp_path / "a.xml", []

    def write(model, path, format, options):
        for file in (path, path.with_suffix(".bin")):
            file.write_text("new")

    def replace(*arguments, replace=os.replace):
        steps.append(arguments)
        if len(steps) == step:
            raise KeyboardInterrupt
        replace(*arguments)

    for file in (path, path.with_suffix(".bin")):
        file.write_text("old")
    monkeypatch.setattr(sys.modules[export.__module__], "write", write)
    monkeypatch.setattr(type(FORMATS["openvino"]), "check_installed", lambda self: None)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        export(create_model("vit_pico8", classes=2), path, format="openvino", check=False)
    assert not path.exists()
    assert path.with_suffix(".bin").read_text() == ("old", "new")[step - 1]


@pytest.mark.once("torch")
def test_newest_version_of_a_folder_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    (tmp_path / "mine" / "3").mkdir(parents=True)
    (tmp_path / "mine" / "3" / "saved_model.pb").touch()
    assert newest_version(Path("~/mine")) == tmp_path / "mine" / "3"


@pytest.mark.once("torch")
def test_newest_version_skips_incomplete_versions(tmp_path):
    for name in ("2", "9", "²", "٣", ".writing-4", "old"):
        (tmp_path / name).mkdir()
    (tmp_path / "2" / "saved_model.pb").touch()
    (tmp_path / "²" / "saved_model.pb").touch()
    assert newest_version(tmp_path) == tmp_path / "2"
    assert newest_version(tmp_path / "9") is None
    written = tmp_path / ".writing-4"
    (written / "saved_model.pb").touch()
    assert move_to_next_version(written, tmp_path) == tmp_path / "10"


@pytest.mark.once("torch")
def test_export_runs_no_code_from_the_current_folder(tmp_path, monkeypatch):
    """The second process must not import a planted module instead of a library."""
    for name in ("h5py", "json", "keras", "tensorflow"):
        text = "open('planted', 'w').close()\nraise ImportError"
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(writing, "subprocess", subprocess)  # a process of its own
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    model = create_model("vit_pico8", classes=2)
    options = {
        "class_names": ["a", "b"],
        "top_k": 1,
        "return_maps": False,
        "frame_step": None,
        "provenance": {"notes": "x" * 2**18},  # longer than an argument of a process
        "preprocessing": None,
        "activation": "softmax",
        "is_applied": False,
        "precision": None,
    }
    writing.write_in_another_process(model, tmp_path / "out" / "model", "saved_model", options)
    assert (tmp_path / "out" / "model" / "saved_model.pb").is_file()
    assert not (tmp_path / "planted").exists()


@pytest.mark.once("torch")
@pytest.mark.parametrize("wrong", [None, 5, "vit_pico8", keras.layers.Dense(2)])
def test_export_of_an_unsuitable_object_raises_value_error(wrong, tmp_path):
    with pytest.raises(ValueError, match="model="):
        export(wrong, tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_exported_weights_sha256_equals_the_hash_of_the_weight_values(exported):
    model, path, *_ = exported
    values = b"".join(w.tobytes() for w in model.get_weights())
    found = json.loads((path / METADATA).read_text())["weights_sha256"]
    assert found == hashlib.sha256(values).hexdigest()


@pytest.mark.peers
def test_exported_warm_up_records_are_valid_requests_to_each_signature(exported):
    """The requests are records of `PredictionLog`, which TensorFlow Serving reads."""
    peer("tensorflow_serving.apis")
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    _, path, *_ = exported
    served = tf.saved_model.load(str(path))
    names = []
    for record in tf.data.TFRecordDataset(str(path / WARM_UP)):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        signature = served.signatures[request.model_spec.signature_name]
        answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        assert answer["probabilities"].shape == (1, 7)
        names.append(request.model_spec.signature_name)
    assert sorted(names) == ["encoded", "images", "pixels", "serving_default"]
