"""A killed and resumed run ends like an uninterrupted run."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner.data import Batches
from keras_tokenlearner.data.batches import ReadBatches
from keras_tokenlearner.training import Resume
from keras_tokenlearner.training.distribution import Devices
from tests.training import resumed


def start(*arguments):
    return subprocess.Popen([sys.executable, "-m", "tests.training.resumed", *map(str, arguments)])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return *resumed.run(folder), (folder / "log.csv").read_text()


def assert_same(folder, unbroken, save_freq=2):
    weights, history = resumed.run(folder, save_freq)
    for array, expected in zip(weights, unbroken[0], strict=True):
        np.testing.assert_array_equal(array, expected)
    assert history.history == unbroken[1].history
    assert history.epoch == unbroken[1].epoch == [0, 1, 2]
    assert (folder / "log.csv").read_text() == unbroken[2]


def test_run_killed_during_a_backup_resumes_to_the_weights_of_an_uninterrupted_run(
    unbroken, tmp_path
):
    # Backups: the start, batches 2 and 4 and the end of an epoch; the sixth is batch 4 of epoch 1.
    assert start(tmp_path, 6).wait() == -signal.SIGKILL
    assert (tmp_path / "backup.unfinished").is_file()
    assert_same(tmp_path, unbroken)
    assert not (tmp_path / "backup.unfinished").is_file()
    assert_same(tmp_path, unbroken)  # started once more when all epochs are done


@pytest.mark.slow
def test_run_killed_at_random_moments_resumes_to_the_weights_of_an_uninterrupted_run(
    unbroken, tmp_path
):
    backup = tmp_path / "backup.npz"

    def written():
        return backup.stat().st_mtime_ns if backup.exists() else None

    kills = 0
    while True:
        before, process = written(), start(tmp_path)
        while written() == before and process.poll() is None:
            time.sleep(0.01)
        try:  # there is a new backup, so every start makes progress
            assert process.wait(timeout=random.uniform(0, 1)) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    print(f"killed {kills} times")
    assert kills
    assert_same(tmp_path, unbroken)


@pytest.fixture
def small():
    """Return the parts of a small training: a model, batches, and a function that fits."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    batches = Batches((np.ones((8, 4), "float32"), np.ones((8, 1), "float32")), 4)

    def fit(resume, epochs=2, **arguments):
        arguments = {"initial_epoch": resume.initial_epoch, **arguments}
        return model.fit(
            batches, epochs=epochs, callbacks=[resume], shuffle=False, verbose=0, **arguments
        )

    return model, batches, fit


def test_nan_loss_ends_training_and_keeps_the_backup(small, tmp_path):
    model, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches), epochs=1)
    before, weights = path.read_bytes(), model.get_weights()
    batches.arrays = (batches.arrays[0] * np.nan, batches.arrays[1])
    with pytest.raises(FloatingPointError, match=r"Resume: .* nan in epoch 1.*backup\.npz"):
        fit(Resume(path, batches))
    assert path.read_bytes() == before
    batches.arrays = tuple(np.ones_like(array) for array in batches.arrays)
    fit(Resume(path, batches), epochs=1)
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])


@pytest.mark.once("jax")  # on PyTorch in float32, the constants are views of the weights
def test_resume_into_a_model_that_was_not_adapted_restores_its_normalization(small, tmp_path):
    _, batches, _ = small

    def run(is_adapted, epochs):
        norm = keras.layers.Normalization()
        model = keras.Sequential([keras.Input((4,)), norm, keras.layers.Dense(1)])
        if is_adapted:
            norm.adapt(np.arange(8.0).reshape(2, 4))
        model.compile("sgd", "mse")
        resume = Resume(tmp_path / "backup.npz", batches)
        start = {"initial_epoch": resume.initial_epoch}
        model.fit(batches, epochs=epochs, callbacks=[resume], verbose=0, **start)
        return norm(np.ones((1, 4), "float32"))

    wanted = run(True, 1)
    np.testing.assert_array_equal(run(False, 2), wanted)


class Rows(ReadBatches):
    """Rows of numbers that threads read. A thread raises an error at `broken`, `(epoch, row)`."""

    broken = None

    def __getitem__(self, index):
        x = np.stack(self.found(index))
        return x, x.sum(axis=1, keepdims=True)

    def read(self, row, epoch):
        if (epoch, row) == self.broken:
            raise ValueError(f"row={row}")
        return np.full(4, row / 8, "float32")


def test_error_in_a_reader_thread_ends_training_and_keeps_the_backup(small, tmp_path):
    model, _, _ = small

    def fit(path, broken=None):
        batches = Rows(range(8), threads=2, batch_size=4)
        batches.broken = broken
        resume = Resume(path, batches)
        start = {"initial_epoch": resume.initial_epoch}
        Devices().fit(model, batches, epochs=3, callbacks=[resume], verbose=0, **start)
        return model.get_weights()[0]

    weights = model.get_weights()
    expected = fit(tmp_path / "unbroken.npz")
    model.set_weights(weights)
    model.optimizer.iterations.assign(0)
    path = tmp_path / "backup.npz"
    with pytest.raises(ValueError, match="^row=5$"):
        fit(path, broken=(1, 5))
    assert Resume(path, Rows(range(8), threads=1, batch_size=4)).initial_epoch == 1
    np.testing.assert_array_equal(fit(path), expected)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_error_in_a_reader_thread_is_raised_by_fit_and_evaluate_of_devices(small, method):
    """TensorFlow hides the error behind another error, except for the first two batches."""
    model, _, _ = small

    class Broken(Rows):
        def read(self, row, epoch):
            self.broken = epoch, 5  # in every epoch
            return super().read(row, epoch)

    with pytest.raises(ValueError, match="^row=5$"):
        batches = Broken(range(8), threads=2, batch_size=1, shuffle=False)
        getattr(Devices(), method)(model, batches)


def test_full_disk_ends_training_and_keeps_the_backup(small, tmp_path):
    resource = pytest.importorskip("resource", reason="only on Linux and macOS: `resource`")
    _, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches), epochs=1)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Resume: .*backup\.npz .*unchanged"):
            fit(Resume(path, batches))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["backup.npz"]


@pytest.mark.once("torch")
@pytest.mark.parametrize("folder", ["file", "/sys"])
def test_resume_in_an_unwritable_folder_raises_before_training(folder, small, tmp_path):
    model, batches, fit = small
    weights = model.get_weights()
    (tmp_path / "file").write_text("")
    if not Path(tmp_path / folder).exists():
        pytest.skip("only on Linux: it has /sys, where not even root makes files")
    with pytest.raises(OSError, match=rf"Resume: .*{folder}/backup\.npz"):
        fit(Resume(tmp_path / folder / "backup.npz", batches))
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])


@pytest.mark.once("torch")
def test_resume_from_a_damaged_backup_raises(small, tmp_path):
    _, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Resume: .*backup\.npz"):
        Resume(path, batches)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes",
    [
        {"place": None},
        {"place": "[]"},
        {"place": "{"},
        {"place": '{"epoch": "2", "batch": 0, "history": []}'},
        {"place": '{"epoch": 2, "batch": 0, "history": []}'},
        {"place": '{"epoch": 0, "batch": 99, "history": []}'},
        {"place": '{"epoch": 1, "batch": 0, "history": [{"loss": {}}]}'},
        {"place": '{"epoch": 1, "batch": 0, "history": [5]}'},
        {"paths": None},
        {"paths": "5"},
        {"paths": "[5]"},
        {"run": "[]"},
        {"1": None},
        {"1": np.array(["text"])},
        {"1": np.zeros(1, "complex64")},
    ],
    ids=str,
)
def test_resume_from_an_edited_backup_raises(tmp_path, changes):
    batches = Batches((np.ones((8, 4)), np.ones((8, 1))), 4)
    path = tmp_path / "backup.npz"
    place = {"epoch": 1, "batch": 0, "history": [{"loss": 0.5}]}
    texts = {"place": place, "paths": ["kernel", "bias"], "run": {"seed": 0}}
    arrays = {name: json.dumps(value) for name, value in texts.items()}
    arrays |= {"0": np.ones((4, 1)), "1": np.ones(1)}
    np.savez(path, **arrays)
    assert Resume(path, batches, run={"seed": 0}).initial_epoch == 1
    kept = {**arrays, **changes}
    np.savez(path, **{name: array for name, array in kept.items() if array is not None})
    with pytest.raises(ValueError, match="backup.npz .*edited.*delete"):
        Resume(path, batches, run={"seed": 0})


@pytest.mark.once("torch")
def test_resume_with_a_backup_overwritten_by_another_run_raises(small, tmp_path):
    _, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches), epochs=1)
    ours, other = Resume(path, batches), Resume(path, batches)
    fit(other)
    written = path.read_bytes()
    with pytest.raises(ValueError, match=r"Resume: another run .*backup\.npz"):
        fit(ours)
    assert path.read_bytes() == written
    assert Resume(path, batches).initial_epoch == 2


@pytest.mark.once("torch")
def test_resume_from_a_backup_of_another_model_raises(small, tmp_path):
    _, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    resume = Resume(path, batches)
    with pytest.raises(ValueError, match=r"Resume: .*backup\.npz"):
        other.fit(batches, epochs=3, initial_epoch=2, callbacks=[resume], verbose=0)


@pytest.mark.once("torch")
def test_resume_from_a_backup_with_initial_epoch_0_raises(small, tmp_path):
    _, batches, fit = small
    fit(Resume(tmp_path / "backup.npz", batches), epochs=1)
    with pytest.raises(ValueError, match="Resume: .*initial_epoch=0"):
        fit(Resume(tmp_path / "backup.npz", batches), initial_epoch=0)


@pytest.mark.once("torch")
@pytest.mark.parametrize("steps", [1, 3])
def test_resume_with_more_or_fewer_steps_per_epoch_than_batches_raises_before_training(
    steps, small, tmp_path
):
    model, batches, fit = small
    weights = model.get_weights()
    with pytest.raises(ValueError, match=rf"Resume: .*Received: {steps} steps .* 2 batches"):
        fit(Resume(tmp_path / "backup.npz", batches), steps_per_epoch=steps)
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])
    assert not list(tmp_path.iterdir())
    assert len(fit(Resume(tmp_path / "backup.npz", batches), steps_per_epoch=2).epoch) == 2


def test_resume_restores_the_history_of_a_metric_with_a_value_per_class(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    metric = keras.metrics.F1Score(average=None, name="f1")
    random = np.random.default_rng(0)
    labels = np.eye(3, dtype="float32")[np.arange(8) % 3]
    batches = Batches((random.normal(size=(8, 4)).astype("float32"), labels), 4)
    model.compile("sgd", "categorical_crossentropy", metrics=[metric], jit_compile=False)
    path, arguments = tmp_path / "backup.npz", {"shuffle": False, "verbose": 0}
    first = model.fit(batches, epochs=2, callbacks=[Resume(path, batches)], **arguments)
    assert np.shape(first.history["f1"]) == (2, 3)
    resume = Resume(path, batches)
    start = {"initial_epoch": resume.initial_epoch, "epochs": 3}
    history = model.fit(batches, callbacks=[resume], **start, **arguments).history
    np.testing.assert_array_equal(history["f1"][:2], first.history["f1"])
    assert np.shape(history["f1"]) == (3, 3)


def test_resume_with_steps_per_execution_saves_at_the_end_of_an_execution(tmp_path):
    if keras.backend.backend() == "torch":
        pytest.skip("only on tensorflow and jax: one step per execution on torch")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False, steps_per_execution=3)
    batches = Batches((np.ones((14, 4), "float32"), np.ones((14, 1), "float32")), 1)
    saved, resume = [], Resume(tmp_path / "backup.npz", batches, save_freq=4)
    save = resume._save
    resume._save = lambda epoch, batch: (saved.append((epoch, batch)), save(epoch, batch))
    model.fit(batches, epochs=1, callbacks=[resume], shuffle=False, verbose=0)
    # Executions end after 3, 6, 9, 12 and 14 batches; the multiples of 4 are 4, 8 and 12.
    assert saved == [(0, 0), (0, 6), (0, 9), (0, 12), (1, 0)]


def test_interrupted_run_resumes_in_the_same_process(tmp_path):
    """Keras counts names, so the second optimizer's variables have other names."""
    batches = Batches((np.ones((8, 4), "float32"), np.ones((8, 1), "float32")), 4)
    path = tmp_path / "backup.npz"

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.params["epochs"] == 2 and batch == 1 and self.model.optimizer.iterations > 2:
                raise KeyboardInterrupt

    def fit(path, *callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
        resume = Resume(path, batches, save_freq=1)
        start = {"initial_epoch": resume.initial_epoch, "callbacks": [resume, *callbacks]}
        model.fit(batches, epochs=2, shuffle=False, verbose=0, **start)
        return model.get_weights()

    expected = fit(tmp_path / "unbroken.npz")
    with pytest.raises(KeyboardInterrupt):
        fit(path, Interrupt())
    assert Resume(path, batches).place["batch"] == 1
    for one, other in zip(fit(path), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.once("torch")
def test_resume_from_a_backup_with_other_settings_raises_and_lists_the_differences(small, tmp_path):
    _, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches, run={"learning_rate": 0.1, "seed": 0}), epochs=1)
    assert Resume(path, batches, run={"learning_rate": 0.1, "seed": 0}).initial_epoch == 1
    with pytest.raises(ValueError, match="learning_rate: 0.1, now 0.2") as caught:
        Resume(path, batches, run={"learning_rate": 0.2, "seed": 0})
    assert "seed" not in str(caught.value) and "--restart" in str(caught.value)


def test_resume_with_restart_ignores_the_file_and_replaces_it_when_training_starts(small, tmp_path):
    _, batches, fit = small
    path = tmp_path / "backup.npz"
    fit(Resume(path, batches, run={"seed": 0}), epochs=1)
    before = path.read_bytes()
    resume = Resume(path, batches, run={"seed": 1}, restart=True)
    assert resume.initial_epoch == 0 and path.read_bytes() == before
    fit(resume, epochs=2)
    assert Resume(path, batches, run={"seed": 1}).initial_epoch == 2


@pytest.mark.once("torch")
def test_resume_with_a_run_that_is_no_json_raises(small, tmp_path):
    with pytest.raises(ValueError, match="Resume: `run`.*Received: run="):
        Resume(tmp_path / "backup.npz", small[1], run={"data": tmp_path})
