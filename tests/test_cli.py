"""The command line: its output and errors."""

import csv
import importlib
import io
import json
import os
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import keras_tokenlearner
from keras_tokenlearner import analysis, cli, create_model, list_models
from keras_tokenlearner.cli.export import _lines
from keras_tokenlearner.data import ArrayImages, named, video
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.training import RECIPES
from keras_tokenlearner.weights import store

pytestmark = pytest.mark.once("torch")

VERBS = typer.main.get_command(cli.app).commands


def run(*arguments):
    return CliRunner().invoke(cli.app, arguments)


def test_models_command_lists_the_matching_names():
    printed = run("models", "vit_b*").stdout.splitlines()
    assert [line.split()[0] for line in printed] == list_models("vit_b*")
    assert len(run("models").stdout.splitlines()) == len(list_models())


def test_costs_command_prints_the_layers_and_paper_flops():
    printed = run("costs", "tokenlearner_b16_8at6").stdout
    assert "token_learner" in printed
    assert re.search(r"by the paper.s count: 28\.36 GFLOPs", printed)


def test_costs_command_of_a_file_equals_the_costs_of_its_model(tmp_path):
    model = create_model("vit_pico8", classes=3)
    model.save(tmp_path / "pico.keras")
    assert run("costs", str(tmp_path / "pico.keras")).stdout == f"{analysis.costs(model)}\n"


def test_costs_command_with_the_options_paper_and_csv_prints_csv_rows():
    rows = list(csv.reader(io.StringIO(run("costs", "--paper", "--format", "csv").stdout)))
    header = ["table", "row", "paper_gflops", "gflops", "paper_mparams", "mparams", "note"]
    assert rows[0] == header
    assert ["1", "ViT B/16", "55.6", "55.63", "", "86.9", ""] in rows
    assert len(rows) == 49


def test_costs_command_without_a_model_exits_with_2():
    assert run("costs").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("costs vit_b61", "'vit_b16'.*model='vit_b61'"),
        ("models vit_z*", r"models: .*pattern='vit_z\*'"),
        ("train fashion_mnist --set epochs=0", "train: .* epochs=0"),
        ("train fashion_mnist --set batch_size=0", "train: .* batch_size=0"),
        ("train fashion_mnist --set learning_rate=nan", "train: .* learning_rate=nan"),
        ("train videos", "train: `data` .*`train` and `test` .* data=''"),
        (
            "train imagenet_384 --set gradient_accumulation_steps=0",
            "Received: gradient_accumulation_steps=0",
        ),
        ("predict . image.png --top-k 0", "predict: .* top_k=0"),
        ("evaluate vit_pico8 --frame-rate 0", "evaluate: `frame_rate` .* frame_rate=0"),
        ("evaluate . --data fashion_mnist", "evaluate: .* model='.'"),
        ("evaluate vit_pico8 --weights random --data folder", "'folder:NAME'.* data='folder'"),
        ("evaluate vit_pico8 --data fashion_mnist", "evaluate: .*'random'.*weights=None"),
        ("export vit_pico8 served", "export: .*'random'.*weights=None"),
        ("distill vit_pico8 fast.keras --at 1", "distill: .*'random'.*weights=None"),
        ("distill mine.keras ./mine.keras --at 1", "distill: `output` .*model='mine.keras'"),
        (
            "distill vit_pico8 fast.keras --at 1 --weights random --data fashion_mnist",
            "distill: `data` .* 1000 .*data='fashion_mnist' with 10",
        ),
        ("predict vit_pico8 image.png", "predict: .*'random'.*weights=None"),
        ("export none.keras served", "export: .* model='none.keras'"),
        ("export vit_pico8 served --class-names n.txt", "class_names='n.txt'"),
        ("export vit_pico8 served --format tflite", "format='tflite'"),
        ("export vit_pico8 served --precision int8", "precision='int8'"),
        ("export vit_pico8 served --layout triton", "layout='triton'"),
        ("export vit_pico8 served.onnx", "path='served.onnx'"),
        ("export vit_pico8 served --top-k 0", "top_k=0"),
        ("serve .", "serve: `path` .* path='.'"),
        (
            "evaluate x2plus1d_pico --weights random --data nothing",
            "evaluate: `data` .* data='nothing'",
        ),
    ],
)
def test_command_with_a_wrong_argument_prints_one_line(arguments, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if arguments.endswith(" image.png"):
        (tmp_path / "image.png").touch()
    monkeypatch.setattr("sys.argv", ["keras-tokenlearner", *arguments.split()])
    with pytest.raises(SystemExit, match=said):
        cli.main()
    assert not (tmp_path / "served").exists() and not (tmp_path / "fast.keras").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        "serve . --port 99999",
        "serve . --max-batch 0",
        "evaluate vit_pico8 --size 0",
        "costs vit_b16 --paper",
        "costs vit_b16 --format csv",
        "evaluate x2plus1d_pico --weights random --data . --metrics few_shot",
        "evaluate x2plus1d_pico --weights random --data . --batch-size 8",
        "evaluate vit_pico8 --weights random --data . --stride 4",
        "evaluate vit_pico8 --weights random --data . --frame-rate 12",
    ],
)
def test_command_with_a_wrong_number_or_unused_option_exits_with_2(arguments):
    assert run(*arguments.split()).exit_code == 2


def test_command_line_version_option_prints_the_version():
    assert run("--version").stdout.strip() == f"keras-tokenlearner {keras_tokenlearner.__version__}"


@pytest.mark.once("tensorflow")
def test_export_command_of_a_model_with_nan_weights_prints_one_line(monkeypatch, tmp_path):
    model = create_model("vit_pico8", classes=2)
    model.set_weights([np.full_like(values, np.nan) for values in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    monkeypatch.setattr(
        "sys.argv", ["keras-tokenlearner", "export", f"{tmp_path}/nan.keras", f"{tmp_path}/served"]
    )
    with pytest.raises(SystemExit, match="keras-tokenlearner: export: .*finite"):
        cli.main()


def test_command_with_an_error_of_a_library_prints_the_traceback(monkeypatch):
    def fail():
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        cli.main()


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_command_line_short_help_option_equals_help(verb):
    words = [verb] if verb else []
    assert run(*words, "-h").stdout == run(*words, "--help").stdout != ""


def test_command_line_option_help_texts_are_sentences():
    """Each help text describes its value and is no fragment, such as "Of HTTP."."""
    for verb in VERBS.values():
        for parameter in verb.params:
            text = parameter.help or ""
            assert text.endswith(".") and not text.startswith("Of "), (verb.name, parameter.name)


def test_command_line_options_weights_and_json_have_equal_names_and_help_in_all_commands():
    found = {}
    for verb in VERBS.values():
        for parameter in verb.params:
            # `models --weights` is a flag: it lists checkpoints.
            if parameter.name in ("weights", "as_json") and verb.name != "models":
                found.setdefault(parameter.name, set()).add((tuple(parameter.opts), parameter.help))
    assert {name: len(texts) for name, texts in found.items()} == {"weights": 1, "as_json": 1}


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "-h"], ["--version"]], ids=" ".join)
def test_command_line_help_and_version_do_not_import_keras(arguments):
    program = (
        "import runpy, sys\n"
        "try:\n"
        f"    sys.argv = ['keras-tokenlearner', *{arguments}]\n"
        "    runpy.run_module('keras_tokenlearner.cli', run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'keras', 'numpy', 'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stderr


def test_shell_completion_lists_the_commands():
    environment = {
        **os.environ,
        "_KERAS_TOKENLEARNER_COMPLETE": "complete_bash",
        "COMP_WORDS": "keras-tokenlearner ex",
        "COMP_CWORD": "1",
    }
    program = (
        "import sys; sys.argv = ['keras-tokenlearner']; "
        "from keras_tokenlearner.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["export"], done.stderr


def test_evaluate_command_of_a_video_model_without_data_exits_with_2():
    done = run("evaluate", "tokenlearner_x2plus1d_pico", "--weights", "random")
    assert done.exit_code == 2 and "--data FOLDER" in done.output


def test_evaluate_command_of_a_video_model_passes_stride_and_frame_rate(monkeypatch):
    given = []

    def record(*_, **views):
        given.append(views)
        return {}

    evaluation = importlib.import_module("keras_tokenlearner.evaluation")
    monkeypatch.setattr(video, "open_videos", lambda name: (None, name))
    monkeypatch.setattr(evaluation, "evaluate_videos", record)
    model = ("tokenlearner_x2plus1d_pico", "--weights", "random", "--data", "FOLDER", "--json")
    assert run("evaluate", *model, "--stride", "4", "--frame-rate", "12.5").exit_code == 0
    assert run("evaluate", *model).exit_code == 0
    assert given == [{"verbose": 0, "stride": 4, "frame_rate": 12.5}, {"verbose": 0}]


def test_train_command_with_the_option_list_explains_recipes_and_their_fields():
    names = [line.split()[0] for line in run("train", "--list").stdout.splitlines()]
    assert names == list(RECIPES)
    printed = run("train", "imagenet_384", "--set", "epochs=3", "--list").stdout
    assert "tokenlearner_b16_8at6 83.65" in printed
    assert re.search(r"--set epochs=3 +Epochs over the training data\.\n", printed)
    assert run("train").exit_code == 2
    assert "'imagenet_384'" in str(run("train", "imagenet_385").exception)


def test_train_command_lists_a_custom_recipe_and_refuses_unknown_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, planted = list(sys.path), tmp_path / "planted"
    (tmp_path / "colorsys.py").write_text(f"open({str(planted)!r}, 'w').close()")
    for name in ("colorsys", "my_recipes"):  # the tests of the docs import a module of this name
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_recipes.py").write_text(
        "from dataclasses import dataclass\n"
        "import colorsys\n"
        "from keras_tokenlearner.training import FashionMnistRecipe\n"
        "@dataclass(frozen=True)\n"
        "class Shorter(FashionMnistRecipe):\n"
        '    """Half of the epochs."""\n'
        "    epochs: int = 14\n"
    )
    printed = run("train", "my_recipes:Shorter", "--list").stdout
    assert printed.startswith("Half of the epochs.")
    assert re.search(r"--set epochs=14 +Epochs over the training data\.\n", printed)
    assert sys.path == before and not planted.exists()
    for wrong in ("my_recipes:Longer", "no_recipes:Shorter"):
        error = str(run("train", wrong).exception)
        assert "my_recipes:Larger" in error and f"recipe='{wrong}'" in error


def test_train_command_with_an_unknown_distribution_raises():
    done = run("train", "fashion_mnist", "--distribute", "data_paralel")
    assert "'data_parallel'" in str(done.exception)


def of_a_checkpoint():
    """Return a ViT that resizes images as some published checkpoints do."""
    rule = Preprocessing(interpolation="bicubic", crop_fraction=0.5)
    return create_model("vit_pico8", classes=10, preprocessing=rule)


def of_the_readme():
    """Return a backbone with a new last layer, as in the README."""
    base = create_model("vit_pico8", include_top=False, pooling="avg")
    outputs = keras.layers.Dense(10, activation="softmax")(base.output)
    return keras.Model(base.input, outputs, name="vit_pico8")


@pytest.mark.parametrize("build", [of_a_checkpoint, of_the_readme])
def test_distill_command_saves_the_student_and_compares_both_models(build, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3)).astype("uint8")
    splits = [ArrayImages(images[:count], np.arange(count) % 10) for count in (40, 20)]
    monkeypatch.setitem(named.OPENERS, "cifar10", lambda: splits)
    monkeypatch.setenv("HOME", str(tmp_path))
    build().save(tmp_path / "mine.keras")
    arguments = ["distill", str(tmp_path / "mine.keras"), "~/fast.keras", "--at", "1"]
    done = run(*arguments, "--num-tokens", "4", "--epochs", "1", "--json")
    teacher, student = json.loads(done.stdout)
    assert (teacher["model"], student["model"]) == ("vit_pico8", "vit_pico8_4at1")
    assert student["gmacs"] < 0.8 * teacher["gmacs"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".keras"}  # no backup is left
    words = ["--data", "cifar10", "--metrics", "top1", "--json"]
    (row,) = json.loads(run("evaluate", str(tmp_path / "fast.keras"), *words).stdout)
    assert row["top1"] == pytest.approx(student["accuracy"])
    done = run(*arguments[:2], str(tmp_path / "fast.h5"), "--at", "1")
    assert "output='" in str(done.exception)


def test_distill_command_with_the_classes_of_the_model_in_another_order_raises(
    tmp_path, monkeypatch
):
    images = ArrayImages(np.zeros((4, 32, 32, 3), "uint8"), np.arange(4) % 2, ("cat", "dog"))
    monkeypatch.setitem(named.OPENERS, "cifar10", lambda: [images, images])
    names = ("dog", "cat")
    create_model("vit_pico8", classes=2, class_names=names).save(tmp_path / "mine.keras")
    arguments = ["distill", str(tmp_path / "mine.keras"), str(tmp_path / "fast.keras"), "--at", "1"]
    done = run(*arguments)
    assert re.search("distill: .*`model`.*'dog' as class 0 .*as class 1 ", str(done.exception))


@pytest.mark.every_backend
def test_export_command_writes_a_saved_model_with_class_names(tmp_path):
    tensorflow = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    model = create_model("vit_pico8", classes=2)
    model.save(tmp_path / "model.keras")
    (tmp_path / "class_names.txt").write_text("cat\ndog\n")
    done = run(
        "export",
        str(tmp_path / "model.keras"),
        str(tmp_path / "served"),
        "--class-names",
        str(tmp_path / "class_names.txt"),
    )
    assert done.stdout.strip() == str(tmp_path / "served" / "1")
    served = tensorflow.saved_model.load(str(tmp_path / "served" / "1"))
    answer = served.images(np.zeros((1, 32, 32, 3), "uint8"))
    assert sorted(answer["top_class_names"].numpy()[0].tolist()) == [b"cat", b"dog"]


def test_class_names_file_of_an_editor_gives_one_name_per_line(tmp_path):
    """The file has a byte order mark and line ends of Windows. A name has a line separator."""
    names = ["cat", "dog\u2028or wolf", "fox\x0b"]
    for ending in ("\r\n", ""):
        text = "\ufeff" + "\r\n".join(names) + ending
        (tmp_path / "names.txt").write_bytes(text.encode())
        assert _lines(str(tmp_path / "names.txt")) == names


@pytest.mark.every_backend
def test_export_command_writes_a_preset_with_its_class_names(tmp_path):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    model = create_model("vit_pico8", classes=2, class_names=["cat", "dog"])
    folder = str(model.save_to_preset(tmp_path / "preset"))
    done = run("export", folder, str(tmp_path / "served"))
    assert done.exit_code == 0, done.exception
    file = tmp_path / "served" / "1" / "assets.extra" / "keras_tokenlearner.json"
    found = json.loads(file.read_text())
    assert found["class_names"] == ["cat", "dog"]
    assert found["provenance"] == {"model": folder, "weights": None}


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "place", ["hf://me/mine", "./vit_b16", "./tokenlearner_nano4_8at2", "a.keras"]
)
def test_export_command_of_an_address_or_preset_folder_exports_the_preset(
    tmp_path, monkeypatch, place
):
    monkeypatch.chdir(tmp_path)
    model, exported = create_model("vit_pico8", classes=2), []
    model.save_to_preset("mine" if "://" in place else place)
    if "://" in place:  # without a network
        load = importlib.import_module("keras_tokenlearner.applications.load")
        monkeypatch.setattr(load, "from_preset", lambda *_: keras_tokenlearner.from_preset("mine"))

    def export(*arguments, **options):
        exported.append(arguments)
        return types.SimpleNamespace(path="there")

    monkeypatch.setattr(keras_tokenlearner, "export", export)
    done = run("export", place, "out")
    assert done.stdout == "there\n", done.exception
    ((built, *_, provenance, _),) = exported
    assert built.classes == 2 and provenance == {"model": place, "weights": None}


@pytest.mark.once("tensorflow")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="only on tensorflow: other backends write the same file",
)
def test_export_command_of_included_weights_states_their_provenance(tmp_path):
    done = run("export", "tokenlearner_nano4_8at2", str(tmp_path / "served"))
    file = tmp_path / "served" / "1" / "assets.extra" / "keras_tokenlearner.json"
    assert done.stdout.strip() == str(file.parents[1])
    found = json.loads(file.read_text())
    stored = store.find("tokenlearner_nano4_8at2", "fashion_mnist")
    assert found["class_names"] == list(stored.class_names)
    said = found["provenance"]
    assert (said["sha256"], said["licence"]) == (stored.sha256, stored.licence)
