"""Training on several devices and processes, all on CPUs, equals training on one device."""

import functools
import json
import types

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.data import Batches
from keras_tokenlearner.training.distribution import Devices, scope
from keras_tokenlearner.training.distribution.devices import batch_normalizations, optimizers_of
from tests.training.distribution import worker
from tests.training.distribution.launch import BACKEND, free_port, launch

TIME_LIMIT = 1800  # seconds; processes wait for each other on busy cores

# Mode, processes, devices of each; the thorough ones are slow.
ARRANGEMENTS = {
    "jax": [
        # 4 parts of a batch, each on 2 devices
        pytest.param("model_parallel:2", 1, 8, marks=pytest.mark.slow),
        pytest.param("data_parallel", 1, 8, marks=pytest.mark.slow),
        pytest.param("data_parallel", 2, 2, marks=pytest.mark.slow),
        pytest.param("model_parallel:2", 2, 1, marks=pytest.mark.slow),
    ],
    "tensorflow": [
        pytest.param("data_parallel", 1, 4, marks=pytest.mark.slow),
        pytest.param("data_parallel", 2, 1, marks=pytest.mark.slow),
    ],
    "torch": [("data_parallel", 2, 1)],
}[BACKEND]
VIDEO_MODEL = (  # DistributedDataParallel cannot share the BatchNormalization of X(2+1)D
    "tokenlearner_vivit_l16_16at12" if BACKEND == "torch" else "tokenlearner_x2plus1d_pico"
)
over_arrangements = pytest.mark.parametrize(("mode", "processes", "cpus"), ARRANGEMENTS)


def run(mode, processes, cpus, folder, *arguments):
    """Run the worker in several processes, and return the results of each."""
    arguments = (mode, folder, *arguments)
    running = launch("tests.training.distribution.worker", arguments, processes, cpus)
    try:
        assert [process.wait(TIME_LIMIT) for process in running] == [0] * len(running)
    finally:
        for process in running:
            process.terminate()  # it may wait for a process that has failed
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(processes)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_device")
    worker.run("one_device", folder)
    return json.loads((folder / "0.json").read_text())


def assert_equal(found, expected, replicas):
    assert found["replicas"] == replicas
    assert found["epochs"] == [0, 1]
    assert found["history"].keys() == expected["history"].keys()
    for name, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][name], values, atol=1e-4, err_msg=name)
    for name, value in expected["scores"].items():
        assert found["scores"][name] == pytest.approx(value, abs=1e-4)
    np.testing.assert_allclose(found["answers"], expected["answers"], atol=1e-4)
    assert found["weights"] == pytest.approx(expected["weights"], rel=1e-5)


@over_arrangements
def test_training_on_several_devices_equals_one_device(mode, processes, cpus, expected, tmp_path):
    parts = int(mode.partition(":")[2] or 1)
    for found in run(mode, processes, cpus, tmp_path):
        assert_equal(found, expected, processes * cpus // parts)
        # Each of the two blocks divides 7 weights of the attention and 3 of the MLP.
        assert len(found["divided"]) == (2 * (7 + 3) if parts > 1 else 0)


@pytest.mark.slow
@over_arrangements
def test_training_on_several_devices_continues_from_its_backup(
    mode, processes, cpus, expected, tmp_path
):
    run(mode, processes, cpus, tmp_path, 1)
    parts = int(mode.partition(":")[2] or 1)
    for found in run(mode, processes, cpus, tmp_path):
        assert_equal(found, expected, processes * cpus // parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [VIDEO_MODEL, "distiller"])
def test_training_of_a_video_model_or_distiller_on_several_devices_equals_one_device(
    name, tmp_path
):
    processes, cpus = {"jax": (1, 8), "tensorflow": (1, 2), "torch": (2, 1)}[BACKEND]
    for folder in ("one", "several"):
        (tmp_path / folder).mkdir()
    worker.run("one_device", tmp_path / "one", 2, name)
    expected = json.loads((tmp_path / "one" / "0.json").read_text())
    for found in run("data_parallel", processes, cpus, tmp_path / "several", 2, name):
        assert_equal(found, expected, processes * cpus)


def test_shards_of_batches_in_all_processes_join_to_the_whole_batch():
    parts = [Batches((np.arange(40),), 8, seed=3) for _ in range(4)]
    for index, batches in enumerate(parts):
        batches.shard = (index, 4)
    whole = Batches((np.arange(40),), 8, seed=3)
    for index in range(len(whole)):
        joined = np.concatenate([batches[index][0] for batches in parts])
        np.testing.assert_array_equal(joined, whole[index][0])


class FourReplicas(Devices):
    replicas = 4


@pytest.mark.once("torch")
def test_fit_and_evaluate_of_devices_restore_the_state_of_the_batches():
    class Second(Devices):
        processes, process = 2, 1

    devices, seen = Second(), []

    class Seen(Batches):
        def __getitem__(self, index):
            seen.append((self.shard, self.ordered, self.alone == devices.alone))
            return super().__getitem__(index)

    training, test = (Seen((np.ones((8, 2)), np.ones((8, 1))), 4) for _ in range(2))
    before = [(batches.shard, batches.ordered, batches.alone) for batches in (training, test)]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    devices.fit(model, training, test, verbose=0)
    devices.evaluate(model, test)
    with pytest.raises(ZeroDivisionError):
        devices.fit(model, training, callbacks=[keras.callbacks.LambdaCallback(lambda *_: 1 / 0)])
    found = [(batches.shard, batches.ordered, batches.alone) for batches in (training, test)]
    assert found == before and set(seen) == {((1, 2), True, True)}


@pytest.mark.parametrize(("rows", "batch_size", "partial"), [(32, 6, False), (34, 8, True)])
def test_batches_not_divisible_by_devices_raise(rows, batch_size, partial):
    batches = Batches((np.zeros((rows, 2)),), batch_size, partial=partial)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=f" 4 replicas.* {rows} .*batch_size={batch_size}"):
        FourReplicas().fit(model, batches)


def test_evaluation_of_examples_not_divisible_by_devices_raises():
    model = create_model("vit_pico8", classes=10)
    with pytest.raises(ValueError, match=" 4 replicas.* 10 "):
        FourReplicas().evaluate(model, (np.zeros((10, 32, 32, 3)), np.zeros(10)))


def test_predict_of_examples_not_divisible_by_devices_returns_all_outputs():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    x = np.arange(20, dtype="float32").reshape(10, 2)
    kernel = model.get_weights()[0]
    found = FourReplicas().predict(model, x, batch_size=5)
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-5)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("data_paralel", "'data_parallel'.*mode='data_paralel'"),
        ("data_parallel:2", "mode='data_parallel:2'"),
        ("model_parallel:0", "mode='model_parallel:0'"),
    ],
)
def test_scope_of_an_unknown_mode_or_number_of_devices_raises(mode, message):
    with pytest.raises(ValueError, match=message), scope(mode):
        pass


@pytest.mark.skipif(BACKEND == "jax", reason="only on tensorflow and torch: JAX has it")
def test_model_parallel_scope_on_a_backend_other_than_jax_raises():
    with (
        pytest.raises(ValueError, match=f"model_parallel .*KERAS_BACKEND={BACKEND}"),
        scope("model_parallel"),
    ):
        pass
    assert keras.distribution.distribution() is None


@pytest.mark.skipif(BACKEND == "jax", reason="only on tensorflow and torch: JAX has it")
def test_keras_distribution_on_a_backend_other_than_jax_raises():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    try:
        with pytest.raises(ValueError, match="KERAS_BACKEND=jax.*DataParallel"):
            Devices().fit(model, Batches((np.zeros((4, 2)),), 2))
        with pytest.raises(ValueError, match="Received: DataParallel"), scope("auto"):
            pass
    finally:
        keras.distribution.set_distribution(None)


class Untouched(Devices):
    def _prepare(self, model):
        raise AssertionError("the model changes")


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("callbacks", "history"),
        ("callbacks", [keras.callbacks.History(), 1]),
        ("validation_data", 3),
        ("validation_data", ()),
        ("validation_data", (np.ones((4, 2)), None)),
        ("validation_data", np.ones((4, 2))),
        ("validation_data", {"x": np.ones((4, 2))}),
    ],
)
def test_fit_of_devices_with_a_wrong_argument_raises_before_the_model_changes(name, value):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    batches = Batches((np.ones((4, 2)), np.ones((4, 1))), 2)
    with pytest.raises(ValueError, match=f"^Devices.*: `{name}` .*Received: {name}="):
        Untouched().fit(model, batches, **{name: value})
    if name == "validation_data":
        with pytest.raises(ValueError, match="^Devices.*: `data` .*Received: data="):
            Untouched().evaluate(model, value)


@pytest.mark.once("torch")
def test_evaluate_of_devices_in_several_processes_with_other_data_sets_raises():
    class Second(Untouched):
        processes, process = 2, 1

    with pytest.raises(ValueError, match="^Devices: `data` .*Received: data="):
        Second().evaluate(keras.Sequential(), iter([]))


@pytest.mark.once("torch")
def test_fit_of_devices_takes_one_callback_or_none_and_other_data_sets_of_keras():
    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.ones((2, 2)), np.ones((2, 1))

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    batches, seen = Batches((np.ones((4, 2)), np.ones((4, 1))), 2), []
    one = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
    for callbacks in (None, one):
        Devices().fit(model, batches, Rows(), callbacks=callbacks, verbose=0)
    assert len(seen) == 1
    assert Devices().evaluate(model, Rows())["loss"] == pytest.approx(seen[0]["val_loss"])


class Normalized(keras.layers.Layer):
    """A layer of a user with a BatchNormalization in a list, and with its enclosing model."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "enclosing", None)  # Keras does not track it
        self.parts = [keras.layers.BatchNormalization(name="in_a_list")]

    def call(self, inputs):
        return self.parts[0](inputs)


@pytest.mark.once("torch")
def test_batch_normalizations_of_a_model_include_those_inside_layers_but_no_frozen_ones():
    norm = keras.layers.BatchNormalization
    nested = keras.Sequential([keras.Input((2, 2)), norm(name="nested"), norm(trainable=False)])
    wrapped = keras.layers.TimeDistributed(norm(name="wrapped"))
    own = Normalized()
    model = keras.Sequential([keras.Input((2, 2)), nested, wrapped, own])
    object.__setattr__(own, "enclosing", model)
    found = [layer.name for layer in batch_normalizations(model)]
    assert found == ["nested", "wrapped", "in_a_list"]


def with_normalization():
    """Return a compiled model with BatchNormalization in a nested model."""
    inner = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(name="inner")])
    model = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return model, inner.get_layer("inner")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategies")
def test_training_on_two_devices_of_tensorflow_normalises_and_clips_as_on_one_device(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    worker.run("one_device", tmp_path / "one", 2, "dense")
    expected = json.loads((tmp_path / "one" / "0.json").read_text())
    (found,) = run("data_parallel", 1, 2, tmp_path / "two", 2, "dense")
    assert_equal(found, expected, 2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategies")
@pytest.mark.parametrize("replicas", [1, 2])
def test_fit_of_devices_on_tensorflow_changes_a_model_of_several_replicas_until_its_end(replicas):
    batches, seen = Batches((np.ones((4, 2)), np.ones((4, 1))), 2), []

    def see(*_, **__):
        seen.append((layer.synchronized, vars(model.optimizer).get("apply"), model.train_function))

    def fail(*_, **__):
        raise ZeroDivisionError

    with scope("data_parallel") as devices:
        devices.replicas = replicas
        model, layer = with_normalization()
        model.compile(keras.optimizers.SGD(clipvalue=1.0), "mse", jit_compile=False)
        model.fit(batches, verbose=0)
        see()
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=see)
        devices.fit(model, batches, callbacks=callback, verbose=0)
        of_user = model.optimizer.apply = functools.partial(
            keras.optimizers.SGD.apply, model.optimizer
        )
        with pytest.raises(ZeroDivisionError):
            devices.fit(model, batches, callbacks=keras.callbacks.LambdaCallback(fail), verbose=0)
        see()
    (_, _, of_keras), *during, (synchronized, apply, function) = seen
    assert not synchronized and apply is of_user
    assert function is (None if replicas == 2 else of_keras)
    for synchronized, apply, function in during:
        assert synchronized is (apply is not None) is (function is not of_keras) is (replicas == 2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategies")
@pytest.mark.parametrize(("replica", "finite"), [(0, 3.0), (1, 0.0)])
def test_sums_of_gradients_on_tensorflow_keep_values_that_are_not_finite_on_all_replicas(
    replica, finite, monkeypatch
):
    import tensorflow as tf

    from keras_tokenlearner.training.distribution.on_tensorflow import _sums

    context = types.SimpleNamespace(
        replica_id_in_sync_group=replica, all_reduce=lambda _, gradients: gradients
    )
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)
    first, second = _sums([tf.constant([3.0, np.inf, np.nan]), None])
    np.testing.assert_array_equal(first, [finite, np.inf, np.nan])
    assert second is None
    context = None  # outside replicas, where Keras adds no gradients
    assert _sums([first, None]) == [first, None]


@pytest.mark.once("torch")
@pytest.mark.parametrize("scaled", [False, True])
def test_optimizers_of_a_model_include_those_that_a_function_chooses_for_each_variable(scaled):
    def choose(variable):
        return keras.optimizers.SGD(clipnorm=0.1 if variable.name == "bias" else 0.2)

    optimizer = keras.optimizers.MultiOptimizer(choose)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=False)
    assert [each.clipnorm for each in optimizers_of(model)] == [0.2, 0.1]
    batches = Batches((np.ones((4, 2)), np.ones((4, 1))), 2)
    assert "loss" in Devices().fit(model, batches, verbose=0).history


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategies")
def test_gradient_accumulation_on_devices_of_tensorflow_raises():
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    with scope("data_parallel") as devices:
        model, _ = with_normalization()
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer), "mse")
    batches = Batches((np.ones((4, 2)), np.ones((4, 1))), 2)
    with pytest.raises(ValueError, match="^Devices.fit: .*gradient_accumulation_steps=2"):
        devices.fit(model, batches)


@pytest.fixture
def torch_devices(monkeypatch):
    """The devices of a run of torchrun with one process."""
    from torch import distributed

    names = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(names, ("test", 0, 1, "localhost", free_port()), strict=True):
        monkeypatch.setenv(name, str(value))
    try:
        with scope("data_parallel") as devices:
            yield devices
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(BACKEND != "torch", reason="only on torch: others normalise whole batches")
def test_data_parallel_fit_of_batch_normalization_on_torch_raises(torch_devices):
    batches = Batches((np.ones((4, 2)), np.ones((4, 1))), 2)
    model, layer = with_normalization()
    with pytest.raises(ValueError, match="BatchNormalization.*model "):
        torch_devices.fit(model, batches)
    layer.trainable = False
    assert "loss" in torch_devices.fit(model, batches, verbose=0).history


@pytest.mark.skipif(BACKEND != "torch", reason="only on torch: its processes average metrics")
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_first_data_parallel_fit_or_evaluate_on_torch_with_a_metric_that_is_no_mean_raises(
    method, torch_devices
):
    """Keras creates the metrics of `compile` in the first call of `fit` or `evaluate`."""
    batches = Batches((np.ones((4, 2)), np.ones((4, 1))), 2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "mse", metrics=["accuracy", keras.metrics.AUC(name="area")])
    before = model.get_weights()[0]
    with pytest.raises(ValueError, match="Devices: .*mean.*Received: area"):
        getattr(torch_devices, method)(model, batches)
    np.testing.assert_array_equal(model.get_weights()[0], before)


@pytest.mark.skipif(BACKEND != "jax", reason="only on jax: its distributions")
def test_alone_of_devices_restores_the_previous_distribution():
    with scope("data_parallel") as devices:
        with devices.alone():
            assert keras.distribution.distribution() is None
        assert keras.distribution.distribution() is devices.distribution
    with devices.alone():
        pass
    assert keras.distribution.distribution() is None


@pytest.mark.skipif(BACKEND != "jax", reason="only on jax: its devices")
def test_model_parallel_size_that_does_not_divide_the_devices_raises():
    with (
        pytest.raises(ValueError, match="model_parallel:3 .* devices"),
        scope("model_parallel:3"),
    ):
        pass


@pytest.mark.skipif(BACKEND != "torch", reason="only on torch: its torchrun")
def test_data_parallel_without_torchrun_raises():
    with (
        pytest.raises(ValueError, match="Received: no .*TORCHELASTIC_RUN_ID"),
        scope("data_parallel"),
    ):
        pass
