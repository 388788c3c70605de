"""Every boolean argument of the public API refuses strings, since `bool("False")` is true."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import applications, data, layers, models, serving, training, weights
from keras_tokenlearner.data import video
from tests.layers.helpers import refused

pytestmark = pytest.mark.once("torch")

# Classes that only the package creates, and methods that Keras or `train` calls.
NOT_FOR_USERS = {
    ("PublishedCheckpoint", "is_checked"),
    ("Plan", "reads"),  # `plan_of` makes plans
    ("Statement", "is_config"),
    ("Distiller.compute_loss", "training"),
    ("Recipe.batches", "training"),  # of recipes: `train` calls it
    ("FashionMnistRecipe.batches", "training"),
    ("ImageNet384Recipe.batches", "training"),
    ("VideosRecipe.batches", "training"),
}
BLOCK = {"num_heads": 2, "mlp_dim": 8}


def public_booleans():
    """Return `(qualified name, argument)` of the boolean arguments that packages export."""
    packages = [kt]
    for found in pkgutil.walk_packages(kt.__path__, "keras_tokenlearner."):
        if found.ispkg and found.name != "keras_tokenlearner.cli":
            packages.append(importlib.import_module(found.name))
    found = set()
    for package in packages:
        for name, item in vars(package).items():
            if name.startswith("_") or not str(getattr(item, "__module__", "")).startswith(
                "keras_tokenlearner."
            ):
                continue
            functions = [item] if callable(item) else []
            if inspect.isclass(item):
                functions += [
                    method
                    for name, method in vars(item).items()
                    if inspect.isfunction(method)
                    and not name.startswith(("_", "call", "compute_output"))
                ]
            for function in functions:
                if isinstance(function, type) and issubclass(function, Exception):
                    continue
                for argument in inspect.signature(function).parameters.values():
                    said = argument.annotation
                    said = said if isinstance(said, str) else getattr(said, "__name__", str(said))
                    if isinstance(argument.default, bool) or said in ("bool", "bool | None"):
                        found.add((function.__qualname__, argument.name))
    return found


@pytest.fixture(scope="module")
def model():
    return kt.create_model("vit_pico8", classes=3)


def config(**field):
    return models.VisionTransformerConfig(
        hidden_dim=16, num_layers=2, num_heads=2, mlp_dim=32, patch_size=(8, 8), **field
    )


CALLS = {
    "hub_backbone": lambda _, **a: applications.hub_backbone("vit_pico8", **a),
    "Batches": lambda model, **a: data.Batches((np.arange(4),), 2, **a),
    "Resume": lambda model, **a: training.Resume(
        "backup.npz", data.Batches((np.arange(4),), 2), **a
    ),
    "ImageBatches": lambda model, **a: data.ImageBatches(
        data.ArrayImages(np.zeros((4, 8, 8, 3), "uint8"), np.arange(4)), (8, 8, 3), 2, **a
    ),
    "VideoBatches": lambda model, **a: video.VideoBatches(
        video.VideoList(("a.mp4",), np.array([0]), ("a",)), (2, 8, 8, 3), 1, **a
    ),
    "augment_clip": lambda model, **a: video.augment_clip(
        np.zeros((2, 8, 8, 3)), 8, 8, np.random.default_rng(0), **a
    ),
    "MLP": lambda model, **a: layers.MLP(8, **a),
    "TokenLearner": lambda model, **a: layers.TokenLearner(4, **a),
    "TransformerBlock": lambda model, **a: layers.TransformerBlock(**BLOCK, **a),
    "VectorAttention": lambda model, **a: layers.VectorAttention(**a),
    "VisionTransformerConfig": lambda model, **a: config(**a),
    "VisionTransformer": lambda model, **a: models.VisionTransformer(
        config(), input_shape=(16, 16, 3), classes=3, **a
    ),
    "X2Plus1D": lambda model, **a: models.X2Plus1D(
        models.X2Plus1DConfig(), input_shape=(4, 32, 32, 3), classes=3, **a
    ),
    "create_model": lambda model, **a: kt.create_model("vit_pico8", **a),
    "list_models": lambda model, **a: kt.list_models(**a),
    "from_preset": lambda model, **a: kt.from_preset("no_such_folder", **a),
    "feature_extractor": lambda model, **a: models.feature_extractor(model, [0], **a),
    "retrofit": lambda model, **a: kt.retrofit(model, at=1, num_tokens=4, **a),
    "distill": lambda model, **a: kt.distill(
        kt.retrofit(model, at=1, num_tokens=4), model, np.zeros((4, 32, 32, 3)), **a
    ),
    "train": lambda model, **a: training.train(training.FashionMnistRecipe(), "trained", **a),
    "load": lambda model, **a: weights.load(model, "keras_tokenlearner", model, **a),
    "Plan.load": lambda model, **a: weights.plan_of(model, "keras_tokenlearner").load(model, **a),
    "Plan.fit": lambda model, **a: weights.plan_of(model, "keras_tokenlearner").fit(model, **a),
    "export": lambda model, **a: kt.export(model, "served", **a),
    "serve": lambda model, **a: serving.serve("served", **a),
    "predict": lambda model, **a: serving.predict("model.keras", "image.png", **a),
}


def test_boolean_argument_cases_cover_every_public_function_with_booleans():
    assert {name for name, _ in public_booleans() - NOT_FOR_USERS} == set(CALLS)


@pytest.mark.parametrize(("name", "argument"), sorted(public_booleans() - NOT_FOR_USERS))
def test_boolean_argument_given_as_text_raises(name, argument, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = model.get_weights()
    refused(lambda: CALLS[name](model, **{argument: "False"}), f"{argument}='False'")
    assert not list(tmp_path.iterdir())
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))
