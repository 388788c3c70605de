"""Public functions given the wrong object raise an error that names the argument."""

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import analysis, applications, data, evaluation, models, training, weights
from keras_tokenlearner.data import video
from keras_tokenlearner.presets import save_to_preset
from keras_tokenlearner.serving import predict
from keras_tokenlearner.training import Resume
from keras_tokenlearner.training.distillation import needs

pytestmark = pytest.mark.once("torch")

IMAGES, LABELS = np.zeros((2, 32, 32, 3), "float32"), np.arange(2)
SMALL = {"classes": 2, "input_shape": (32, 32, 3)}


class Subclass(keras.Model):
    def call(self, inputs):
        return inputs


def two_inputs():
    first, second = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    return keras.Model([first, second], keras.layers.Add()([first, second]))


@pytest.fixture(scope="module")
def made():
    """A teacher, a student, and objects that are not models of this package."""
    teacher = kt.create_model("vit_pico8", **SMALL)
    wrong = {
        "None": None,
        "text": "vit_pico8",
        "integer": 3,
        "list": [teacher],
        "dictionary": {},
        "array": IMAGES,
        "class": keras.Model,
        "own class": models.VisionTransformer,
        "layer": teacher.layers[3],
        "function": print,
        "empty": keras.Sequential(),
        "unbuilt": keras.Sequential([keras.layers.Dense(2)]),
        "subclass": Subclass(),
        "two inputs": two_inputs(),
        "plain": keras.Sequential(
            [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
        ),
    }
    return teacher, kt.retrofit(teacher, at=1, num_tokens=4), wrong


NO_MODEL = ("None", "text", "integer", "list", "dictionary", "array", "class", "own class")
NO_MODEL += ("layer", "function")
NO_GRAPH = (*NO_MODEL, "empty", "unbuilt", "subclass")
NOT_SINGLE = (*NO_GRAPH, "two inputs")
NOT_OURS = (*NOT_SINGLE, "plain")

# Each row: a function of (teacher, student, wrong object, folder), the wrong objects, and the
# argument that the error must name.
CALLS = {
    "costs": (lambda t, s, x, f: kt.costs(x), NO_GRAPH, "model"),
    "count": (lambda t, s, x, f: analysis.count(x, (8,)), NO_MODEL[:-2], "layer"),
    "token_maps": (lambda t, s, x, f: analysis.token_maps(x, IMAGES), NOT_OURS, "model"),
    "token_similarity": (
        lambda t, s, x, f: analysis.token_similarity(x, IMAGES),
        NOT_OURS,
        "model",
    ),
    "with_token_maps": (lambda t, s, x, f: analysis.with_token_maps(x), NOT_OURS, "model"),
    "retrofit": (lambda t, s, x, f: kt.retrofit(x, at=1), NOT_OURS, "model"),
    "with_tokens": (lambda t, s, x, f: kt.with_tokens(x, 2), NOT_OURS, "model"),
    "feature_extractor": (lambda t, s, x, f: kt.feature_extractor(x, (0,)), NOT_OURS, "model"),
    "distill student": (lambda t, s, x, f: kt.distill(x, t, IMAGES), NOT_OURS, "student"),
    "distill teacher": (lambda t, s, x, f: kt.distill(s, x, IMAGES), NOT_OURS, "teacher"),
    "distill images": (lambda t, s, x, f: kt.distill(s, t, x), NO_MODEL[:5], "images"),
    "Distiller student": (lambda t, s, x, f: kt.Distiller(x, t), NOT_OURS, "student"),
    "Distiller teacher": (lambda t, s, x, f: kt.Distiller(s, x), NOT_OURS, "teacher"),
    "needs student": (lambda t, s, x, f: needs(x, t, 1, 8), NO_GRAPH, "student"),
    "needs teacher": (lambda t, s, x, f: needs(s, x, 1, 8), NO_GRAPH, "teacher"),
    "evaluate": (
        lambda t, s, x, f: evaluation.evaluate(x, ["fashion_mnist"], ["top1"]),
        NOT_SINGLE,
        "model",
    ),
    "compare": (
        lambda t, s, x, f: evaluation.compare([x], IMAGES, LABELS, 2),
        NOT_SINGLE,
        "models",
    ),
    "compare one": (
        lambda t, s, x, f: evaluation.compare(x, IMAGES, LABELS, 2),
        ("None", "text", "integer", "dictionary", "array", "class", "plain"),
        "models",
    ),
    "images_per_second": (
        lambda t, s, x, f: evaluation.images_per_second([x], IMAGES),
        NOT_SINGLE,
        "models",
    ),
    "few_shot": (lambda t, s, x, f: evaluation.few_shot(x, {}), NOT_SINGLE, "model"),
    "linear_probe": (
        lambda t, s, x, f: evaluation.linear_probe(x, IMAGES, LABELS),
        NOT_SINGLE,
        "model",
    ),
    "predict_videos": (
        lambda t, s, x, f: evaluation.predict_videos(x, None),
        NOT_OURS,
        "model",
    ),
    "evaluate_videos": (
        lambda t, s, x, f: evaluation.evaluate_videos(x, None),
        NOT_OURS,
        "model",
    ),
    "export": (lambda t, s, x, f: kt.export(x, f), (*NO_MODEL, "two inputs"), "model"),
    "export path": (lambda t, s, x, f: kt.export(t, x), ("None", "integer", "list"), "path"),
    "predict": (lambda t, s, x, f: predict(x, [f]), ("None", "integer", "list"), "model"),
    "load_model": (
        lambda t, s, x, f: applications.load_model(x),
        ("None", "integer", "list", "plain"),
        "model",
    ),
    "list_models": (lambda t, s, x, f: kt.list_models(x), ("None", "integer", "list"), "pattern"),
    "save_weights": (
        lambda t, s, x, f: weights.save_weights(x, f / "a.weights.h5"),
        (*NO_MODEL, "empty"),
        "model",
    ),
    "load": (lambda t, s, x, f: weights.load(x, "augreg", {}), NOT_OURS, "model"),
    "read_checkpoint": (
        lambda t, s, x, f: weights.read_checkpoint(x),
        ("None", "integer", "list", "array", "class", "function"),
        "checkpoint",
    ),
    "to_timm": (lambda t, s, x, f: weights.to_timm(x), NOT_OURS, "model"),
    "Plan.load": (lambda t, s, x, f: weights.plan_of(t).load(x), NOT_OURS, "model"),
    "save_to_preset": (lambda t, s, x, f: save_to_preset(x, f), NOT_OURS, "model"),
    "save_to_preset folder": (
        lambda t, s, x, f: save_to_preset(t, x),
        ("None", "integer", "list"),
        "folder",
    ),
    "train": (lambda t, s, x, f: training.train(x, f), (*NO_MODEL, "plain"), "recipe"),
    "with_settings": (
        lambda t, s, x, f: training.with_settings(x, ["epochs=2"]),
        (*NO_MODEL, "plain"),
        "recipe",
    ),
    "describe": (lambda t, s, x, f: training.describe(x), ("None", "text", "plain"), "kind"),
    "Resume batches": (lambda t, s, x, f: Resume(f / "r.npz", x), NOT_OURS, "batches"),
    "Resume path": (
        lambda t, s, x, f: Resume(x, data.Batches((IMAGES, LABELS), 2)),
        ("None", "integer", "list"),
        "path",
    ),
    "ImageBatches": (
        lambda t, s, x, f: data.ImageBatches(x, (32, 32, 3), 2, training=False),
        NOT_OURS,
        "images",
    ),
    "open_named": (
        lambda t, s, x, f: data.open_named(x),
        ("None", "integer", "list", "plain"),
        "data",
    ),
    "from_folder": (lambda t, s, x, f: data.from_folder(x), ("None", "integer", "list"), "path"),
    "from_folder of videos": (
        lambda t, s, x, f: video.from_folder(x),
        ("None", "integer", "list"),
        "path",
    ),
    "VisionTransformer": (
        lambda t, s, x, f: models.VisionTransformer(x, input_shape=(32, 32, 3)),
        NOT_OURS,
        "config",
    ),
    "X2Plus1D": (
        lambda t, s, x, f: models.X2Plus1D(x, input_shape=(2, 32, 32, 3)),
        NOT_OURS,
        "config",
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_wrong_object_raises_an_error_that_names_the_argument(call, made, tmp_path):
    teacher, student, wrong = made
    function, kinds, argument = CALLS[call]
    for kind in kinds:
        with pytest.raises(ValueError, match=f"`{argument}`|{argument} (?!must)"):
            function(teacher, student, wrong[kind], tmp_path)
    assert not list(tmp_path.iterdir())


def test_videos_that_are_no_video_list_raise_in_evaluation_and_prediction():
    model = kt.create_model("tokenlearner_x2plus1d_pico", classes=2, input_shape=(2, 16, 16, 3))
    for function in (evaluation.evaluate_videos, evaluation.predict_videos):
        for wrong in (None, "videos", 3, ["a.mp4"], model, video.VideoList):
            with pytest.raises(ValueError, match="`videos`"):
                function(model, wrong)
