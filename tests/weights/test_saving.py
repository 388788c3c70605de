"""Files of weights: intact, damaged, truncated, and of another model."""

import hashlib
import os
import signal
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset
from keras_tokenlearner.weights import load_weights, save_weights, saved_classes, saving
from tests.conformance import assign_weights

pytestmark = pytest.mark.once("torch")

PICO = "tokenlearner_pico8_4at1"
NUMPY = keras.ops.convert_to_numpy


@pytest.fixture
def saved(tmp_path):
    model = create_model(PICO, classes=10)
    path = tmp_path / "pico.weights.h5"
    digest = save_weights(model, path)
    return model, path, digest


def _equal(ours, theirs):
    """Check that two models have equal weights at the same paths."""
    expected = {weight.path: keras.ops.convert_to_numpy(weight) for weight in theirs.weights}
    for weight in ours.weights:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), expected[weight.path])


def _refused(model, path, message, **arguments):
    """Assert that loading raises a matching `ValueError` and leaves the weights unchanged."""
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load_weights(model, path, **arguments)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.every_backend
def test_weights_saved_and_loaded_are_unchanged(saved):
    model, path, digest = saved
    other = create_model(PICO, classes=10)
    load_weights(other, path, expected_sha256=digest)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit_pico8", {}),
        ("vit_pico8", {"head_bias": False}),
        ("vit_pico8", {"pre_logits": 7}),
        ("vit_pico8", {"pre_logits": 7, "head_bias": False}),
        ("vit_pico8", {"head_reads": "attention"}),
        ("vit_pico8", {"final_norm": "pooled"}),
        ("x2plus1d_pico", {}),
        ("x2plus1d_pico", {"unit": "conv2d+prior_broadcast"}),
    ],
    ids=str,
)
def test_weights_of_each_kind_of_head_load_with_and_without_top(tmp_path, name, changes):
    model, path = create_model(name, classes=5, **changes), tmp_path / "a.weights.h5"
    assign_weights(model)
    save_weights(model, path)
    assert saved_classes(path) == 5
    _equal(create_model(name, weights=path, **changes), model)
    _equal(create_model(name, weights=path, include_top=False, pooling="avg", **changes), model)
    _refused(
        create_model(name, classes=7, **changes), path, "a.weights.h5 has 5 classes.*classes=5"
    )


def test_weights_of_a_model_without_head_but_with_pre_logits_load(tmp_path):
    given = {"include_top": False, "pooling": "head", "pre_logits": 7}
    model, path = create_model("vit_pico8", **given), tmp_path / "a.weights.h5"
    assign_weights(model)
    save_weights(model, path)
    _equal(create_model("vit_pico8", weights=path, **given), model)


def test_load_weights_with_norms_unlike_the_model_without_top_raises(tmp_path):
    model = create_model("vit_pico8", final_norm="pooled", embedding_norm=True)
    path = tmp_path / "a.weights.h5"
    save_weights(model, path)
    body = create_model("vit_pico8", final_norm="pooled", include_top=False)
    _refused(body, path, r"a\.weights\.h5.*'vit_pico8'")
    tokens = create_model("vit_pico8", include_top=False)  # its norm precedes the pooling
    save_weights(create_model("vit_pico8", final_norm=None, include_top=False), path)
    _refused(tokens, path, r"a\.weights\.h5.*'vit_pico8'")


def test_load_weights_of_a_deeper_model_into_a_model_without_top_raises(tmp_path):
    path = tmp_path / "a.weights.h5"
    save_weights(create_model("vit_pico8", classes=5, num_layers=3), path)
    _refused(create_model("vit_pico8", include_top=False), path, r"a\.weights\.h5.*'vit_pico8'")


@pytest.mark.every_backend
def test_weights_file_of_a_compiled_model_loads_into_an_uncompiled_model(tmp_path):
    model = create_model(PICO, classes=10, dropout_rate=0.1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, 32, 32, 3)), np.zeros(2), verbose=0)
    save_weights(model, tmp_path / "pico.weights.h5")
    other = create_model(PICO, classes=10, dropout_rate=0.1)
    load_weights(other, tmp_path / "pico.weights.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_save_weights_returns_and_stores_the_sha256_of_the_file(saved):
    _, path, digest = saved
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    beside = path.with_name(path.name + ".sha256")
    assert beside.read_text() == f"{digest}  {path.name}\n"


def test_weights_file_with_damaged_bytes_raises_and_names_sha256(saved):
    model, path, _ = saved
    content = bytearray(path.read_bytes())
    content[-40_000:-30_000] = b"\x00" * 10_000
    path.write_bytes(content)
    _refused(model, path, r"pico\.weights\.h5.* sha256")


def test_weights_file_with_nan_raises_even_if_no_hash_is_given(saved, tmp_path):
    model, _, _ = saved
    broken = create_model(PICO, classes=10)
    weights = broken.get_weights()
    weights[3][...] = np.nan
    broken.set_weights(weights)
    path = tmp_path / "broken.weights.h5"
    broken.save_weights(path)
    _refused(model, path, r"broken\.weights\.h5.*finite")


@pytest.mark.every_backend
def test_weights_file_with_nan_leaves_a_compiled_model_unchanged(tmp_path):
    model, broken = (create_model(PICO, classes=10, dropout_rate=0.1) for _ in range(2))
    for each in (model, broken):
        each.compile("adam", "sparse_categorical_crossentropy")
        each.fit(np.ones((2, 32, 32, 3)), np.zeros(2), verbose=0)
    broken.fit(np.ones((2, 32, 32, 3)), np.ones(2), verbose=0)
    broken.head.bias.assign(np.full(10, np.nan))
    broken.save_weights(tmp_path / "broken.weights.h5")
    variables = [*model.variables, *model.optimizer.variables]
    before = [NUMPY(variable) for variable in variables]
    _refused(model, tmp_path / "broken.weights.h5", "finite")
    for old, new in zip(before, variables, strict=True):
        np.testing.assert_array_equal(old, NUMPY(new))


def test_truncated_weights_file_raises(saved):
    model, path, _ = saved
    path.with_name(path.name + ".sha256").unlink()
    path.write_bytes(path.read_bytes()[:20_000])
    _refused(model, path, r"pico\.weights\.h5.*HDF5")


def test_weights_file_of_another_format_raises(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("not weights")
    _refused(create_model(PICO, classes=10), path, r"text\.weights\.h5.*HDF5")


def test_weights_file_of_another_number_of_classes_raises(saved):
    _, path, _ = saved
    model = create_model(PICO, classes=7)
    _refused(model, path, "pico.* 10 .* 7; .*classes=10")


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_logits": 7},
        {"head_bias": False},
        {"pre_logits": 7, "head_bias": False},
        {"final_norm": "pooled"},
        {"final_norm": "pooled", "norm": "rms_norm", "pre_logits": 7},
        {"final_norm": "pooled", "embedding_norm": True, "pre_norm": True},
    ],
    ids=str,
)
def test_weights_of_layers_between_body_and_head_load_with_and_without_top(tmp_path, changes):
    model = create_model("vit_pico8", classes=10, **changes)
    model.set_weights([array + 0.1 for array in model.get_weights()])
    path = tmp_path / "pico.weights.h5"
    save_weights(model, path)
    assert saved_classes(path) == 10
    for other in (
        create_model("vit_pico8", weights=path, **changes),
        create_model("vit_pico8", weights=path, include_top=False, **changes),
        from_preset(model.save_to_preset(tmp_path / "preset")),
    ):
        expected = {weight.path: weight for weight in model.weights}
        for weight in other.weights:
            np.testing.assert_array_equal(NUMPY(weight), NUMPY(expected[weight.path]))
    _refused(create_model("vit_pico8", classes=7, **changes), path, " 10 .* 7; .*classes=10")


def test_weights_of_a_model_with_a_custom_head_load_into_the_same_model(tmp_path):
    def build(classes):
        base = create_model("vit_pico8", include_top=False, pooling="avg")
        return keras.Model(base.input, keras.layers.Dense(classes, name="mine")(base.output))

    model, other = build(3), build(3)
    save_weights(model, tmp_path / "mine.weights.h5")
    load_weights(other, tmp_path / "mine.weights.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    _refused(build(4), tmp_path / "mine.weights.h5", r"\(32, 4\).*\(32, 3\)")


def test_weights_of_a_model_with_a_second_dense_output_load_into_the_same_model(tmp_path):
    def build(units):
        body = create_model("vit_pico8", classes=10)
        second = keras.layers.Dense(units, name="second")(body.head.input)
        return keras.Model(body.input, [body.output, second])

    model, other = build(3), build(3)
    assign_weights(model)
    save_weights(model, tmp_path / "mine.weights.h5")
    load_weights(other, tmp_path / "mine.weights.h5")
    _equal(other, model)
    _refused(build(4), tmp_path / "mine.weights.h5", r"mine\.weights\.h5")


class Subclassed(keras.Model):
    """A model whose file names layers by attributes: `body/layers/...`, `norm/vars/0`."""

    def __init__(self, classes):
        super().__init__()
        self.body = create_model("vit_pico8", include_top=False, pooling="avg")
        self.norm = keras.layers.BatchNormalization()
        self.last = keras.layers.Dense(classes)

    def call(self, inputs, training=False):
        return self.last(self.norm(self.body(inputs), training=training))


def test_weights_of_a_subclassed_model_load_into_the_same_model(tmp_path):
    models = [Subclassed(3), Subclassed(3), Subclassed(4)]
    for model in models:
        model(np.zeros((1, 32, 32, 3), "float32"))
    model, other, wider = models
    assign_weights(model)
    save_weights(model, tmp_path / "mine.weights.h5")
    load_weights(other, tmp_path / "mine.weights.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    _refused(wider, tmp_path / "mine.weights.h5", r"\(32, 4\).*\(32, 3\)")


def test_weights_file_of_another_architecture_raises(saved):
    _, path, _ = saved
    _refused(
        create_model("vit_pico8", classes=10), path, r"pico\.weights\.h5.* 45 .*'vit_pico8'.* 39"
    )
    _refused(create_model(PICO, classes=10, num_tokens=3), path, f"load_weights: .*{PICO}")


@pytest.mark.parametrize("name", ["model.keras", "weights.npz"])
def test_weights_path_with_another_suffix_raises(name):
    with pytest.raises(ValueError, match=rf"'\.weights\.h5'.*path='{name}'"):
        load_weights(create_model(PICO), name)


@pytest.mark.parametrize("form", ["upper", "empty", "text"])
def test_sha256_file_in_upper_case_is_read_and_sha256_file_without_hash_raises(saved, form):
    model, path, digest = saved
    beside = path.with_name(path.name + ".sha256")
    beside.write_text({"upper": digest.upper(), "empty": "", "text": "none  here\n"}[form])
    if form == "upper":
        load_weights(model, path)
    else:
        _refused(model, path, r"pico\.weights\.h5\.sha256.* 64 ")


def test_save_weights_interrupted_leaves_a_file_that_loads(saved, monkeypatch):
    """The interrupt replaces one of the three renames."""
    model, path, _ = saved
    before, replace = model.get_weights(), os.replace
    for last in range(3):
        steps = []

        def step(*arguments, steps=steps, last=last):
            if len(steps) == last:
                raise KeyboardInterrupt
            steps.append(replace(*arguments))

        changed = create_model(PICO, classes=10)
        monkeypatch.setattr(os, "replace", step)
        with pytest.raises(KeyboardInterrupt):
            save_weights(changed, path)
        monkeypatch.undo()
        load_weights(model, path)
        expected = changed.get_weights() if last == 2 else before
        for one, other in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        path.name,
        f"{path.name}.sha256",
    ]


def test_save_weights_killed_while_it_writes_keeps_the_old_file(saved):
    """The system kills the process when the new file reaches half of its size."""
    pytest.importorskip("resource", reason="only on Linux and macOS: `resource`")
    model, path, _ = saved
    program = (
        "import resource, signal\n"
        "from keras_tokenlearner import create_model\n"
        "from keras_tokenlearner.weights import save_weights\n"
        f"model = create_model({PICO!r}, classes=10)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({path.stat().st_size // 2},) * 2)\n"
        f"save_weights(model, {str(path)!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGXFSZ
    other = create_model(PICO, classes=10)
    load_weights(other, path)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("content", ["valid", "damaged"])
@pytest.mark.parametrize("moment", ["_copy", "check_layout"])
def test_load_weights_reads_the_bytes_that_it_hashed(saved, tmp_path, monkeypatch, moment, content):
    """Another file replaces the weights file after its hash, or after the check of its shapes."""
    model, path, digest = saved
    expected, other = model.get_weights(), tmp_path / "other.weights.h5"
    if content == "valid":
        create_model(PICO, classes=10).save_weights(other)
    else:  # no step after the hash may read this file
        other.write_text("not weights")
    original = getattr(saving, moment)

    def replaced(*arguments):
        found = original(*arguments)
        os.replace(other, path)
        return found

    monkeypatch.setattr(saving, moment, replaced)
    model.set_weights([0 * array for array in expected])
    load_weights(model, path, expected_sha256=digest)
    assert not other.exists()
    for one, two in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_load_weights_compares_shapes_before_keras_reads_the_file(saved, monkeypatch):
    import h5py

    model, path, _ = saved
    path.with_name(path.name + ".sha256").unlink()
    with h5py.File(path, "a") as file:
        name = next(name for name in _names(file) if name.endswith("mlp/hidden/vars/0"))
        del file[name]
        file[name] = np.zeros((32, 1000), "f4")
    monkeypatch.setattr(type(model), "load_weights", None)
    _refused(model, path, r"\(32, 1000\)")


def _names(file):
    names = []
    file.visit(names.append)
    return names


@pytest.mark.parametrize("dtype", ["c8", "i4", "?"])
def test_weights_file_with_arrays_that_are_not_floats_raises(saved, dtype):
    import h5py

    model, path, _ = saved
    path.with_name(path.name + ".sha256").unlink()
    name = "layers/dense/vars/0"
    with h5py.File(path, "a") as file:
        array = file[name][()]
        del file[name]
        file[name] = array.astype(dtype)
    _refused(model, path, "layers/dense/vars/0")


def test_weights_file_whose_kernel_is_a_scalar_raises(saved):
    import h5py

    model, path, _ = saved
    path.with_name(path.name + ".sha256").unlink()
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.float32(1)
    _refused(model, path, r"pico\.weights\.h5.*\(32, 10\)")


def test_weights_file_with_less_data_than_its_header_states_raises(saved):
    """A small file that states ten million classes must not build a model of that size."""
    import h5py

    model, path, _ = saved
    path.with_name(path.name + ".sha256").unlink()
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", shape=(32, 10**7), dtype="f4")
    _refused(model, path, r"layers/dense/vars/0.*\(32, 10000000\)")
    with pytest.raises(ValueError, match=r"create_model.*\(32, 10000000\)"):
        create_model(PICO, weights=str(path))


def test_load_weights_into_an_object_that_is_no_model_raises(saved):
    with pytest.raises(ValueError, match="load_weights: .*model='vit_pico8'"):
        load_weights("vit_pico8", saved[1])


@pytest.mark.parametrize("behind", [b"", b"x"])
def test_load_weights_of_a_compressed_file_raises_and_keeps_the_weights_of_the_model(saved, behind):
    """HDF5 would unpack a chunk of zeros to a thousand times its size.

    HDF5 also reads a chunk with a byte behind its end.
    """
    import h5py

    model, path, _ = saved
    with h5py.File(path, "a") as file:
        kernel = file["layers/dense/vars/0"]
        values = kernel[...]
        del file["layers/dense/vars/0"]
        settings = {"data": values, "chunks": values.shape, "compression": "gzip"}
        dataset = file.create_dataset("layers/dense/vars/0", **settings)
        content = zlib.compress(values.tobytes()) + behind
        dataset.id.write_direct_chunk((0, 0), content)
    path.with_name(path.name + ".sha256").unlink()
    _refused(model, path, "compressed.*layers/dense/vars/0")


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_save_weights_of_a_quantized_model_raises_and_keeps_the_old_file(saved):
    model, path, digest = saved
    model.quantize("int8")
    with pytest.raises(ValueError, match="save_weights: `model`.*block_0/"):
        save_weights(model, path)
    load_weights(create_model(PICO, classes=10), path, digest)


@pytest.fixture
def parts(tmp_path):
    """Return a model, and the index of its weights, which Keras saved as shards."""
    model = create_model(PICO, classes=10, class_token=True)
    assign_weights(model)
    index = tmp_path / "pico.weights.json"
    model.save_weights(index, max_shard_size=3e-5)
    assert len(list(tmp_path.glob("pico_*.weights.h5"))) > 3
    return model, index


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_sharded_weights_saved_by_keras_load_unchanged(tmp_path, dtype):
    given = {"classes": 10, "class_token": True, "dtype": dtype}
    model, ours, theirs = (create_model(PICO, **given) for _ in range(3))
    assign_weights(model)
    index = tmp_path / "pico.weights.json"
    model.save_weights(index, max_shard_size=3e-5)
    assert saved_classes(index) == 10
    load_weights(ours, index)
    theirs.load_weights(index)
    for one, other, wanted in zip(ours.weights, theirs.weights, model.weights, strict=True):
        for weight in (one, other):
            np.testing.assert_array_equal(NUMPY(weight), NUMPY(wanted))
    small = create_model(PICO, weights=index, include_top=False, **{**given, "classes": None})
    _equal(small.get_layer("block_1"), model.get_layer("block_1"))


def test_damaged_weight_shards_raise_and_keep_the_weights_of_the_model(parts):
    import h5py

    model, index = parts
    _, second, *_ = sorted(index.parent.glob("pico_*.weights.h5"))
    _refused(create_model("vit_pico8", classes=10), index, r"pico\.weights\.json")
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    _refused(model, index, f"`expected_sha256`.*{digest}", expected_sha256=digest)
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    _refused(model, index, f"{second.name}.*damaged")
    second.write_bytes(whole)
    with h5py.File(second, "a") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
        values = file[found[0]][...]
        del file[found[0]]
        file.create_dataset(found[0], data=values, chunks=values.shape, compression="gzip")
    _refused(model, index, f"compressed.*{found[0]}")
    second.unlink()
    _refused(model, index, f"`checkpoint`.*{second.name}")
