"""Training that diverges raises and restores the weights. One run at a time may use a folder."""

import concurrent.futures
import errno
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.models import retrofit
from keras_tokenlearner.training import distill, lock
from keras_tokenlearner.training.distribution import Devices
from keras_tokenlearner.training.finite import StopOnNonFinite
from keras_tokenlearner.training.lock import locked


@pytest.mark.parametrize("broken", ["learning_rate", "images"])
def test_fit_that_diverges_raises_and_restores_the_weights(broken):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    rate = 1e30 if broken == "learning_rate" else 0.1
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    x = np.full((8, 4), np.nan if broken == "images" else 1.0)
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="^fit: "):
        model.fit(x, np.ones((8, 1)), epochs=3, callbacks=[StopOnNonFinite()], verbose=0)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scaled", [False, True])
def test_fit_with_weight_averages_that_diverges_restores_the_weights(scaled):
    """On JAX, `fit` copies the averages to the weights even after an error."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(1e30, use_ema=True)
    if scaled:  # as Keras scales losses for mixed_float16
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
    model.compile(optimizer, "mse", jit_compile=False)
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="^fit: "):
        model.fit(
            np.ones((8, 4)), np.ones((8, 1)), epochs=3, callbacks=[StopOnNonFinite()], verbose=0
        )
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.once("torch")
def test_stop_on_non_finite_of_a_model_without_optimizer_raises_floating_point_error():
    callback = StopOnNonFinite()
    callback.set_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    callback.on_train_begin()
    with pytest.raises(FloatingPointError, match="^fit: .*nan"):
        callback.on_epoch_end(0, {"loss": float("nan")})


def test_fit_that_diverges_restores_the_weights_collected_from_all_devices():
    """A process of JAX may hold only a part of a weight, so `get_weights` fails."""

    class Parts(keras.Sequential):
        def get_weights(self):
            raise RuntimeError("not fully addressable")

    model = Parts([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mse", jit_compile=False)
    devices = Devices()
    before = [array.copy() for array in devices.weights(model)]
    stop = StopOnNonFinite(devices=devices)
    with pytest.raises(FloatingPointError, match="^fit: "):
        model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=3, callbacks=[stop], verbose=0)
    for one, other in zip(devices.weights(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("broken", ["learning_rate", "images"])
def test_distill_that_diverges_raises_and_restores_the_student(broken):
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    if broken == "images":
        images[1] = np.nan
    teacher = create_model("vit_pico8", classes=3, input_shape=(16, 16, 3))
    student = retrofit(teacher, at=1, num_tokens=2)
    before = student.get_weights()
    options = {"learning_rate": 1e30 if broken == "learning_rate" else 1e-3, "verbose": 0}
    with pytest.raises(FloatingPointError, match="^distill: "):
        distill(student, teacher, images, [0, 1, 2, 0], epochs=2, batch_size=2, **options)
    for one, other in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def locked_elsewhere(tmp_path):
    """A folder that another process has locked."""
    code = (  # runs lock.py alone, which imports no backend
        f"import runpy, time; locked = runpy.run_path({lock.__file__!r})['locked']\n"
        f"with locked('train', {str(tmp_path)!r}): print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert "locked" in process.stdout.readline()
        yield tmp_path
    finally:
        process.kill()
        process.wait()


def test_training_folder_locked_by_another_process_raises(locked_elsewhere):
    with pytest.raises(ValueError, match="output="), locked("train", locked_elsewhere):
        pass


def test_distill_with_a_backup_in_a_locked_folder_raises_before_any_work(locked_elsewhere):
    teacher = create_model("vit_pico8", classes=3, input_shape=(16, 16, 3))
    student = retrofit(teacher, at=1, num_tokens=2)
    teacher.predict_on_batch = student.predict_on_batch = None  # a call would raise TypeError
    backup = locked_elsewhere / "backup.npz"
    with pytest.raises(ValueError, match=r"^distill: .*backup='.*backup\.npz'"):
        distill(student, teacher, np.zeros((2, 16, 16, 3)), backup=backup)
    assert not backup.exists()


def test_locked_training_folder_can_be_locked_again_by_its_own_run_only(tmp_path):
    def other_thread():
        with pytest.raises(ValueError, match="output="), locked("train", tmp_path):
            pass
        return True

    with locked("train", tmp_path), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(other_thread).result()
        with locked("distill", tmp_path / "." / ""):  # as `distill` does in a recipe of `train`
            pass
        assert pool.submit(other_thread).result()
    with locked("train", tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="none"), locked("train", tmp_path / "none"):
        pass


@pytest.mark.once("torch")
def test_training_folder_on_a_file_system_without_locks_warns_and_stays_usable(
    tmp_path, monkeypatch
):
    def fails(number):
        def lock_file(descriptor):
            raise OSError(number, "no")

        monkeypatch.setattr(lock, "_lock_file", lock_file)

    for number in (errno.ENOLCK, errno.EOPNOTSUPP):
        fails(number)
        with pytest.warns(UserWarning, match=r"train: .*no.*output="), locked("train", tmp_path):
            (tmp_path / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    fails(errno.EACCES)
    with pytest.raises(ValueError, match="train: .*output="), locked("train", tmp_path):
        pass


@pytest.mark.once("torch")
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ESTALE])
def test_training_folder_whose_lock_file_cannot_be_read_raises(number, tmp_path, monkeypatch):
    """Another run may have deleted the file. Windows and network drives then have other errors."""

    def fail(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(lock.os.path, "samestat", fail)
    with pytest.raises(ValueError, match="train: .*output="), locked("train", tmp_path):
        pass
