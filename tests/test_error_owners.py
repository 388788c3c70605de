"""An error starts with the name of the called function, even if an inner function raises it."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import analysis, applications, data, evaluation, models, training, weights
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.data import video
from keras_tokenlearner.evaluation import FewShotProtocol
from keras_tokenlearner.models import Preprocessing, VisionTransformer, VisionTransformerConfig
from keras_tokenlearner.presets import save_to_preset
from keras_tokenlearner.serving import demo, predict, serve
from keras_tokenlearner.training import FashionMnistRecipe
from keras_tokenlearner.training.distillation import needs
from tests.data.video.files import write

pytestmark = pytest.mark.once("torch")

IMAGES, LABELS = np.zeros((4, 32, 32, 3), "float32"), np.arange(4) % 2
PIXELS = IMAGES.astype("uint8")
GRID = {"reducer": "token_learner", "token_attention": "mlp", "token_start": "grid"}
# Invalid arguments for every function that builds a model. Inner classes raise the errors.
BUILT = [
    {"input_shape": (32,)},
    {"input_shape": None, "input_tensor": keras.Input((None, None, 3))},
    {"pooling": "mean", "include_top": False},
    {"pooling": "token", "include_top": False},
    {"classifier_activation": "no_activation"},
    {"dtype": "no_type"},
    {"class_names": ["cat"]},
    {"preprocessing": Preprocessing(mean=(0.1, 0.2))},
]
SAID = {"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6, "normalization": "half"}
CONFIG = [{"num_heads": 5}, {"num_tokens": 3}, {"at": 99}, {**GRID, "num_tokens": 99}]
RECIPE = FashionMnistRecipe(model="vit_pico8", batch_size=4, epochs=1)


class Made:
    """Models and files for the calls."""

    def __init__(self, folder):
        self.folder = folder
        self.model = kt.create_model("vit_pico8", classes=2)
        self.student = kt.retrofit(self.model, at=1, num_tokens=4)
        self.random = kt.retrofit(self.model, at=1, num_tokens=4, token_start="random")
        self.plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        self.features = kt.create_model("vit_pico8", include_top=False, pooling="avg")
        self.clips = kt.create_model("x2plus1d_pico", classes=2, input_shape=(2, 16, 16, 3))
        self.unknown = keras.Sequential([keras.Input((4, 2)), keras.layers.GRU(2)])
        self.small = kt.create_model("vit_pico8", classes=2, num_layers=1)
        self.other = folder / "other.weights.h5"
        weights.save_weights(self.small, self.other)
        self.timm = folder / "timm.npz"
        np.savez(self.timm, **weights.to_timm(self.model))
        self.damaged = folder / "damaged.weights.h5"
        self.damaged.write_bytes(self.other.read_bytes()[:999])
        self.text = folder / "text.png"
        self.text.write_text("no image")
        self.preset = save_to_preset(self.model, folder / "preset")
        self.broken = save_to_preset(self.model, folder / "broken")
        (self.broken / "model.weights.h5").write_bytes(b"no weights")
        self.backup = folder / "damaged.npz"
        self.backup.write_bytes(b"no backup")
        for name in ("train", "test"):
            (folder / "videos" / name / "dark").mkdir(parents=True)
            write(folder / "videos" / name / "dark" / "0.mp4", [50] * 8)
        (folder / "lists").mkdir()
        (folder / "lists" / "train.csv").write_text("name,label\n0.mp4,dark")
        self.videos = video.from_folder(folder / "videos" / "train")
        self.videos = video.VideoList(self.videos.files, self.videos.labels, ("dark", "light"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made"))


def create(m, **arguments):
    return kt.create_model("vit_pico8", **{"classes": 2, "input_shape": (32, 32, 3), **arguments})


def build(m, config=None, **arguments):
    shape = {"input_shape": (32, 32, 3), **arguments}
    fields = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "patch_size": (8, 8)}
    return VisionTransformer(VisionTransformerConfig(**{**fields, **(config or {})}), **shape)


def network(m, **arguments):
    fields = {"stage_channels": (8,), "inner_channels": (16,), "stage_units": (2,)}
    config = models.X2Plus1DConfig("joint", **fields, num_heads=2, key_dim=4)
    return models.X2Plus1D(config, **{"input_shape": (2, 16, 16, 3), "classes": 2, **arguments})


def family(name):
    """Return calls with bad arguments of a function that calls `create_model`, as `ViTB16`."""
    function = getattr(applications, name)
    size = {"stage_units": (1, 1, 1, 3)} if "X2" in name else {"num_layers": 2}
    size |= {"at": 1} if name.startswith("TokenLearner") and "X2" not in name else {}
    wrong = [{"classes": 0}, {"weights": "gone.weights.h5"}, {"input_shape": (32,)}]
    return [lambda m, bad=bad: function(**{**size, **bad}) for bad in wrong]


def each(function, *arguments):
    """Return one call for each dictionary of bad arguments. `function` takes a `Made` first."""
    return [lambda m, bad=bad: function(m, **bad) for bad in arguments]


def from_preset(m, preset=None, **arguments):
    return kt.from_preset(preset or m.preset, **arguments)


FAMILIES = [name for name in applications.__all__ if name[0] in "TVX"]

CALLS = {
    "create_model": [
        *each(create, *BUILT, *CONFIG, {"normalization": "no_name"}, {"grid": (4, 4)}),
        lambda m: create(m, weights=m.other),
        lambda m: create(m, weights=m.damaged),
        lambda m: create(m, weights="gone.weights.h5"),
        lambda m: create(m, weights="timm:gone.pth"),
        lambda m: create(m, weights="no_name"),
        lambda m: create(m, weights=m.broken),
        lambda m: create(m, weights=m.preset, hidden_dim=64),
        lambda m: create(m, weights=m.preset, normalization="no_name"),
        lambda m: create(m, weights=f"timm:{m.timm}", grid=(3, 3), **SAID),
        lambda m: create(m, weights=f"timm:{m.timm}"),
        lambda m: create(m, weights=m.preset, activation="no_activation"),
    ],
    **{name: family(name) for name in FAMILIES},
    "load_model": [
        lambda m: applications.load_model("vit_pico8", weights="random", classes=0),
        lambda m: applications.load_model("vit_pico8", weights="random", input_shape=(32,)),
        lambda m: applications.load_model("vit_pico8", weights=m.other),
        lambda m: applications.load_model(m.preset, at=99),
        lambda m: applications.load_model(m.broken),
    ],
    "catalog_costs": [
        lambda m: analysis.catalog_costs("no_name"),
        lambda m: analysis.catalog_costs("vit_pico8", classes=0),
        lambda m: analysis.catalog_costs("vit_pico8", input_shape=(32,)),
    ],
    "costs": [lambda m: kt.costs(m.unknown)],
    "from_preset": [
        *each(
            from_preset,
            {"at": 99},
            {"at": 1, "num_tokens": 99},
            {"at": 1, "reducer": "no_name"},
            {"at": 1, "fuser": "no_name"},
            {"at": 1, "token_attention": "no_name"},
            {"at": 1, "token_start": "no_name"},
            {"at": 1, "proportional_attention": "yes"},
            {"pooling": "mean", "include_top": False},
            {"classes": 0},
            {"classifier_activation": "no_activation"},
            {"input_shape": (32,)},
            {"normalization": "no_name"},
            {"layer_norm_epsilon": -1.0},
            {"activation": "no_activation"},
            {"num_heads": 0},
            {"num_heads": 5},
            {"resize": "no_name", "input_shape": (64, 64, 3)},
            {"hidden_dim": 64},
            {"dropout_rate": 2.0},
            {"preset": "gone"},
        ),
        lambda m: kt.from_preset(m.broken),
        lambda m: kt.from_preset(f"timm:{m.timm}", num_heads=2, grid=(3, 3), **SAID),
        lambda m: kt.from_preset(f"no_source:{m.preset}"),
    ],
    "VisionTransformer.from_preset": [
        lambda m: VisionTransformer.from_preset(m.preset, at=99),
        lambda m: VisionTransformer.from_preset(m.broken),
    ],
    "save_to_preset": [lambda m: m.model.save_to_preset(3)],
    "VisionTransformer": each(
        build, *BUILT, {"config": {**GRID, "num_tokens": 99}}, {"input_shape": (4, 4, 3)}
    ),
    "X2Plus1D": [
        *each(network, *(bad for bad in BUILT if bad.get("pooling") != "token")),
        *each(network, {"input_shape": (2, 16, 16)}),
    ],
    "bottleneck_module": [
        lambda m: models.bottleneck_module(models.X2Plus1DConfig("joint"), (2, 8, 8, 30)),
        lambda m: models.bottleneck_module(models.X2Plus1DConfig("joint"), (2, 8, 8)),
    ],
    "retrofit": [
        lambda m: kt.retrofit(m.model, at=99),
        lambda m: kt.retrofit(m.model, at=1, num_tokens=99),
        lambda m: kt.retrofit(m.model, at=1, num_tokens=0),
        lambda m: kt.retrofit(m.model, at=1, fuser="no_name"),
        lambda m: kt.retrofit(m.model, at=1, token_attention="no_name"),
        lambda m: kt.retrofit(m.model, at=1, token_start="no_name"),
        lambda m: kt.retrofit(m.model, at=1, reducer="no_name"),
        lambda m: kt.retrofit(
            keras.Model(m.model.input, keras.layers.Dense(3)(m.model.output)), at=1, num_tokens=99
        ),
    ],
    "with_tokens": [lambda m: kt.with_tokens(m.student, 99), lambda m: kt.with_tokens(m.random, 2)],
    "export": [
        lambda m: kt.export(m.model, m.folder / "served", return_maps=True),
        lambda m: kt.export(m.model, m.folder / "served", class_names=["cat"]),
        lambda m: kt.export(m.model, m.folder / "served", classifier_activation="no_name"),
    ],
    "predict": [
        lambda m: predict("vit_pico8", m.text),
        lambda m: predict("vit_pico8", m.text, weights="random"),
        lambda m: predict("vit_pico8", m.text, weights="gone.weights.h5"),
        lambda m: predict("vit_pico8", m.text, weights=m.other),
        lambda m: predict("no_name", m.text),
    ],
    "demo": [
        lambda m: demo("vit_pico8", weights=m.other),
        lambda m: demo("tokenlearner_nano4_8at2", weights="cifar10", tokens=[99]),
        lambda m: demo("vit_pico8", weights="random", top_k=0),
    ],
    "serve": [lambda m: serve(m.folder), lambda m: serve(m.folder, max_batch=0)],
    "open_named": [
        lambda m: data.open_named(f"fashion_mnist:{m.folder}"),
        lambda m: data.open_named(f"cifar10:{m.folder}"),
        lambda m: data.open_named(m.folder),
        lambda m: data.open_named("tfds:no_name"),
    ],
    "load_named": [
        lambda m: data.load_named("no_name"),
        lambda m: data.load_named(f"fashion_mnist:{m.folder}"),
        lambda m: data.load_named("fashion_mnist", (14, 14)),
    ],
    "open_videos": [
        lambda m: video.open_videos(m.folder / "lists"),
        lambda m: video.open_videos(m.folder),
    ],
    "FileImages": [lambda m: data.FileImages([m.text], [0], ["text"])[0]],
    "ImageBatches": [
        lambda m: data.ImageBatches(data.ArrayImages(PIXELS, LABELS), (32, 32, 3), 0, False),
        lambda m: data.ImageBatches(data.ArrayImages(PIXELS, LABELS), (32, 32, 3), 2, threads=0),
        lambda m: data.ImageBatches(
            data.ArrayImages(PIXELS, LABELS), (32, 32, 3), 2, on_error="no_name"
        ),
    ],
    "VideoBatches": [
        lambda m: video.VideoBatches(m.videos, (2, 8, 8, 3), 0),
        lambda m: video.VideoBatches(m.videos, (2, 8, 8, 3), 1, on_error="no_name"),
        lambda m: video.VideoBatches(m.videos, (2, 8, 8, 3), 1, threads=0),
    ],
    "evaluate": [
        lambda m: evaluation.evaluate(m.model, ["no_name"]),
        lambda m: evaluation.evaluate(m.model, [f"fashion_mnist:{m.folder}"]),
        lambda m: evaluation.evaluate(m.features, ["fashion_mnist"], ["speed"], batch_size=0),
        lambda m: evaluation.evaluate(m.features, ["fashion_mnist"], ["speed"], threads=0),
        lambda m: evaluation.evaluate(
            kt.create_model("vit_pico8", classes=10), ["fashion_mnist"], ["real"], m.text
        ),
    ],
    "FewShotProtocol": each(lambda m, **bad: FewShotProtocol(**bad), {"shots": (0,)}, {"l2": -1.0}),
    "evaluate_videos": each(
        lambda m, **bad: evaluation.evaluate_videos(m.clips, m.videos, **{"verbose": 0, **bad}),
        {"stride": 0},
        {"frame_rate": 0},
        {"clips": 0},
        {"crops": 2},
        {"merge": "no_name"},
        {"batch_size": 0},
        {"on_error": "no_name"},
        {"threads": 0},
    ),
    "few_shot": each(
        lambda m, **bad: evaluation.few_shot(
            m.features, {"toy": ((IMAGES, LABELS), (IMAGES, LABELS))}, **bad
        ),
        {"shots": (99,)},
        {"shots": (0,)},
        {"l2": -1.0},
    ),
    "compare": [
        lambda m: evaluation.compare([m.model], IMAGES, LABELS, 2, repeats=0),
        lambda m: evaluation.compare([m.model], IMAGES, LABELS, 0),
    ],
    "distill": each(
        lambda m, **bad: kt.distill(m.student, m.model, IMAGES, **{"verbose": 0, **bad}),
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"temperature": 0.0},
        {"feature_weight": -1.0},
        {"label_weight": 2.0},
        {"backup": "backup.txt/backup"},
    )
    + [lambda m: kt.distill(m.student, m.model, IMAGES, backup=m.backup, verbose=0)],
    "Distiller": each(
        lambda m, **bad: kt.Distiller(m.student, m.model, **bad),
        {"temperature": 0.0},
        {"budgets": [99]},
        {"behind": "no_name"},
    ),
    "needs": [
        lambda m: needs(m.student, m.unknown, 1, 8),
        lambda m: needs(m.plain, m.model, 1, 8),
    ],
    **{
        name: each(
            lambda m, name=name, **bad: getattr(training, name)(
                **{"learning_rate": 1e-3, "steps": 10, **bad}
            ),
            {"learning_rate": 0.0},
            {"steps": 0},
            {"warmup_steps": -1},
            {"warmup_steps": 10},
            {"weight_decay": -1.0},
            {"layer_decay": 2.0},
        )
        for name in ("adamw", "muon")
    },
    "train": [
        lambda m: training.train(FashionMnistRecipe(data="no_name"), m.folder / "trained"),
        lambda m: training.train(FashionMnistRecipe(model="no_name"), m.folder / "trained"),
        lambda m: training.train(FashionMnistRecipe(epochs=0), m.folder / "trained"),
        lambda m: training.train(
            training.Cifar10Recipe(model="vit_pico8", data=f"cifar10:{m.folder}"), m.folder / "c"
        ),
    ],
    "with_settings": [
        lambda m: training.with_settings(RECIPE, ["epochs=many"]),
        lambda m: training.with_settings(RECIPE, ["no_name=3"]),
    ],
    "scope": [
        lambda m: training.distribution.scope("no_name").__enter__(),
        lambda m: training.distribution.scope("data_parallel:2").__enter__(),
    ],
    "load": [
        lambda m: weights.load(m.model, "no_name", m.other),
        lambda m: weights.load(m.model, "timm", m.text),
        lambda m: weights.load(m.model, None, m.student, head="no_name"),
        lambda m: weights.load(m.model, "timm", m.timm, grid=(3, 3), normalization="half"),
        lambda m: weights.load(m.model, "timm", m.timm, normalization="clip"),
        lambda m: weights.load(m.model, None, m.model, normalization="no_name"),
        lambda m: weights.load(m.model, None, m.model, embedding="no_name"),
        lambda m: weights.load(m.model, None, m.model, partial="no"),
    ],
    "plan_of": [
        lambda m: weights.plan_of(m.text),
        lambda m: weights.plan_of(m.model, "no_name"),
        lambda m: weights.plan_of(m.model, normalization="no_name"),
        lambda m: weights.plan_of(m.model, resize="no_name"),
        lambda m: weights.plan_of(m.model, activation="no_name"),
        lambda m: weights.plan_of("no_file.npz", resize="no_name"),
        lambda m: weights.plan_of(m.model, layer_norm_epsilon=-1.0),
        lambda m: weights.plan_of(m.model, num_heads=0),
        lambda m: weights.plan_of(m.model, num_heads=5).config,
    ],
    "Plan.load": [
        lambda m: weights.plan_of(m.model).load(m.model, head="no_name"),
        lambda m: weights.plan_of(m.model).load(m.plain),
        lambda m: weights.plan_of(m.model).load(m.small),
    ],
    "load_weights": [
        lambda m: weights.load_weights(m.model, m.damaged),
        lambda m: weights.load_weights(m.model, m.other),
        lambda m: weights.load_weights(m.model, m.other, "no_hash"),
    ],
    "saved_classes": [lambda m: weights.saved_classes(m.damaged)],
    "read_checkpoint": [lambda m: weights.read_checkpoint(m.text)],
    "to_timm": [lambda m: weights.to_timm(m.plain)],
}

# Commands of the command line, with the words that follow them.
COMMANDS = {
    "costs": [["no_name"]],
    "train": [["no_name"], ["fashion_mnist", "--set", "epochs=many"], ["no_module:Class"]],
    "distill": [
        ["no_name", "out.keras", "--at", "1"],
        ["vit_pico8", "out.keras", "--at", "1", "--weights", "gone.weights.h5"],
        ["vit_pico8", "out.keras", "--at", "1", "--weights", "random", "--data", "no_name"],
        ["tokenlearner_nano4_8at2", "out.keras", "--at", "1", "--data", "fashion_mnist"],
    ],
    "evaluate": [
        ["no_name"],
        ["vit_pico8", "--weights", "gone.weights.h5"],
        ["vit_pico8", "--weights", "random", "--data", "no_name"],
        ["vit_pico8", "--weights", "random", "--metrics", "no_name"],
        ["x2plus1d_pico", "--weights", "random", "--data", "no_folder"],
    ],
    "export": [
        ["no_name", "out"],
        ["vit_pico8", "out", "--weights", "gone.weights.h5"],
        ["vit_pico8", "out", "--weights", "random", "--format", "no_name"],
        ["vit_pico8", "out", "--weights", "random", "--return-maps"],
    ],
    "predict": [["no_name", __file__], ["vit_pico8", __file__, "--weights", "random"]],
    "serve": [["no_folder"]],
    "demo": [["no_name"], ["vit_pico8", "--weights", "gone.weights.h5"]],
    "models": [["no_name"], ["--weights", "no_name"]],
}

# Functions that pass no argument on to another public function.
ALONE = {
    *("animate_clip_maps", "augment_clip", "count", "decode_image", "decode_predictions"),
    *("describe", "draw_clip_maps", "draw_costs", "draw_token_entropy", "draw_token_maps"),
    *("draw_token_similarity", "feature_extractor", "few_shot_accuracy", "fit_clip", "fit_image"),
    *("from_avid", "from_charades", "from_csv", "from_folder", "from_tfds", "images_per_second"),
    *("in_channels", "inception_crop", "linear_probe", "list_checkpoints", "list_models"),
    *("load_cifar10", "load_fashion_mnist", "mean_average_precision", "mean_class_accuracy"),
    *("merge", "paper_costs", "position_entropy", "predict_videos", "preprocess_image"),
    *("preprocess_input", "probe", "random_clip", "read_frames", "read_real_labels"),
    *("real_accuracy", "resizing", "save_weights", "segments", "token_maps", "token_similarity"),
    *("top_k_accuracy", "uniform_clips", "upload_preset", "with_token_maps"),
}
# The errors of these functions need another library. A test checks their decorator instead.
ELSEWHERE = {"hub_backbone"}


def public_functions():
    """Return the public functions of all packages by name."""
    packages = [kt] + [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(kt.__path__, "keras_tokenlearner.")
        if found.ispkg
    ]
    items = [getattr(package, name) for package in packages for name in package.__all__]
    return {item.__name__ for item in items if inspect.isfunction(item)}


def starts(error, name):
    """Return whether the message of an error starts with the name of a function."""
    return str(error).startswith((f"{name}: ", f"{name}("))


def test_cases_with_wrong_arguments_include_every_public_function():
    found = public_functions() - {"main"}
    assert len(found) > 90
    assert found - ALONE - ELSEWHERE == {name for name in CALLS if name in found}
    assert found >= ALONE and not ALONE & CALLS.keys()


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name in CALLS for place in range(len(CALLS[name]))]
)
def test_error_of_a_bad_argument_starts_with_the_name_of_the_called_function(
    name, place, made, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)) as caught:
        CALLS[name][place](made)
    assert starts(caught.value, name)


@pytest.mark.parametrize(
    ("command", "words"), [(name, words) for name in COMMANDS for words in COMMANDS[name]], ids=str
)
def test_error_of_a_command_starts_with_the_name_of_the_command(
    command, words, tmp_path, monkeypatch
):
    testing = pytest.importorskip("typer.testing", reason="the command line")
    from keras_tokenlearner.cli import app

    monkeypatch.chdir(tmp_path)
    done = testing.CliRunner().invoke(app, [command, *words])
    assert isinstance(done.exception, (ValueError, OSError)), done.output
    assert starts(done.exception, command)


def test_cases_with_wrong_arguments_include_every_command():
    from keras_tokenlearner.cli import app

    verbs = {command.callback.__name__ for command in app.registered_commands}
    assert verbs == {*COMMANDS, "quickstart"}  # quickstart takes only a folder


def test_hub_backbone_is_wrapped_by_the_decorator_own_errors():
    assert applications.hub_backbone.__wrapped__.__name__ == "hub_backbone"


def test_errors_of_context_leaves_errors_of_other_code_unchanged():
    for text in ("Dense: 3 units", "a.mp4: no video", "no name", "os: a module of Python"):
        with pytest.raises(ValueError) as caught, errors_of("create_model"):
            raise ValueError(text)
        assert str(caught.value) == text


def test_errors_of_context_replaces_names_of_functions_classes_and_methods():
    for name in ("retrofit", "load('timm: x')", "VisionTransformer", "Plan.load"):
        with pytest.raises(ValueError) as caught, errors_of("create_model('vit_b16')"):
            raise ValueError(f"{name}: `at` must be 1: no more")
        assert str(caught.value) == "create_model('vit_b16'): `at` must be 1: no more"


def test_errors_of_context_replaces_names_of_arguments_in_errors_of_other_functions():
    wrong = "open_videos: `path` must be X. Received: path='a': from_folder: `path`, path='a/b'"
    with pytest.raises(ValueError) as caught, errors_of("train", path="data"):
        raise ValueError(wrong)
    expected = "train: `data` must be X. Received: data='a': from_folder: `path`, path='a/b'"
    assert str(caught.value) == expected


def test_errors_of_context_keeps_the_error_type_and_the_argument_of_the_owner():
    with pytest.raises(ConnectionError) as caught, errors_of("from_preset"):
        raise ConnectionError("from_preset('hf://a/b'): no network")
    assert str(caught.value) == "from_preset('hf://a/b'): no network"


def test_files_of_the_cases_with_wrong_arguments_exist(made):
    assert all(Path(file).exists() for file in (made.other, made.damaged, made.text, made.backup))
