"""Faults of Keras 3.15 that the package works around; each test fails once its fault is fixed.

`make test-keras-faults` runs these tests, as does the weekly job with the nightly build of Keras.
If a test fails, remove it and the workaround that `keras_tokenlearner/_keras_faults.py` names.
Other runs leave these tests out, so that a release of Keras cannot break the runs.
"""

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_tokenlearner._keras_faults import REMAT_MODES
from tests.training.distribution.launch import launch, make_cpus

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.nightly


class Epochs(keras.utils.PyDataset):
    """Batches whose targets are the number of the epoch."""

    epoch = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.zeros((2, 1), "float32"), np.full((2, 1), self.epoch, "float32")

    def on_epoch_end(self):
        self.epoch += 1


@pytest.mark.skipif(BACKEND == "tensorflow", reason="only on jax and torch: the fault")
def test_keras_fit_of_a_pydataset_with_two_workers_starts_epoch_2_with_a_batch_of_epoch_1():
    second = {}
    for workers in (1, 2):  # one worker uses no thread
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        # The model returns 0, so each loss is the mean of the targets.
        model.compile(keras.optimizers.SGD(0.0), "mae")
        batches = Epochs(workers=workers)
        losses = model.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
        second[workers] = losses[1]
    assert second[1] == round(second[1]) > 0
    assert second[2] != round(second[2])


@pytest.mark.skipif(BACKEND == "torch", reason="only on tensorflow and jax: the fault")
def test_keras_remat_scope_with_mode_full_fails_in_training():
    assert "full" not in REMAT_MODES[BACKEND]
    with keras.RematScope(mode="full"):
        inputs = keras.Input((4, 8))
        x = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs)
        x = keras.layers.Dropout(0.1)(keras.layers.Dense(8, activation="gelu")(x))
        model = keras.Model(inputs, keras.layers.LayerNormalization()(x))
    model.compile("sgd", "mse")
    zeros = np.zeros((2, 4, 8), "float32")
    with pytest.raises(Exception):  # noqa: B017 (of JAX or TensorFlow)
        model.fit(zeros, zeros, verbose=0)


@pytest.mark.skipif(BACKEND != "torch", reason="only on torch: the fault")
def test_keras_remat_scope_with_mode_full_draws_new_dropout_masks_for_gradients():
    assert "full" not in REMAT_MODES[BACKEND]
    with keras.RematScope(mode="full"):
        dropout = keras.layers.Dropout(0.5, noise_shape=(None, 1))
    inputs = keras.ops.ones((64, 1)).requires_grad_()
    outputs = dropout(inputs, training=True)
    outputs.sum().backward()
    assert (inputs.grad != outputs).any()


@pytest.mark.skipif(BACKEND != "torch", reason="only on torch: the fault")
def test_keras_remat_scope_with_mode_full_fails_in_mixed_precision():
    with keras.RematScope(mode="full"):
        model = keras.Sequential([keras.layers.Dense(4, dtype="mixed_bfloat16")])
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="bfloat16"):
        model.fit(np.zeros((2, 4)), np.zeros((2, 4)), verbose=0)


@pytest.mark.skipif(BACKEND != "jax", reason="only on jax: the fault")
def test_keras_flash_attention_on_tpus_hides_later_tokens_and_omits_the_scale(monkeypatch):
    import jax
    from jax.experimental.pallas import tpu

    random = np.random.default_rng(0)
    query, key, value = random.normal(size=(3, 1, 128, 1, 128)).astype("float32")
    # Keras sees a TPU; Pallas runs the TPU's program on the CPU.
    monkeypatch.setattr(jax, "devices", lambda *args: [SimpleNamespace(platform="tpu")])
    with tpu.force_tpu_interpret_mode():
        found = keras.ops.dot_product_attention(query, key, value)
    logits = query[0, :, 0] @ key[0, :, 0].T

    def attention(logits):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ value[0, :, 0]

    right = attention(logits / np.sqrt(128))
    wrong = attention(np.where(np.tri(128), logits, -np.inf))
    assert np.abs(found[0, :, 0] - wrong).max() < 1e-3 < np.abs(right - wrong).max()


@pytest.mark.skipif(BACKEND == "jax", reason="only on tensorflow and torch: the fault")
def test_keras_model_parallel_without_jax_has_no_effect():
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], ["cpu:0", "cpu:1"])
    layout = keras.distribution.LayoutMap(mesh)
    layout["dense.*kernel"] = (None, "model")
    distribution = keras.distribution.ModelParallel(layout_map=layout)
    with distribution.scope():
        dense = keras.layers.Dense(4, name="dense")
        dense.build((None, 8))
    assert type(dense.kernel.value) is type(keras.Variable(np.zeros((8, 4))).value)
    assert keras.ops.convert_to_numpy(dense.kernel).shape == (8, 4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategy")
def test_keras_fit_with_multi_worker_mirrored_strategy_fails():
    processes = launch("tests.test_keras_faults", [], processes=2, cpus=1)
    assert [process.wait() for process in processes] == [FAILED, FAILED]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategy")
def test_keras_fit_with_mirrored_strategy_clips_the_gradients_of_each_replica():
    (process,) = launch("tests.test_keras_faults", ["clip"], processes=1, cpus=2)
    assert process.wait() == FAILED


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only on tensorflow: its strategy")
def test_keras_fit_with_mirrored_strategy_and_gradient_accumulation_fails():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
        model.compile(optimizer, "mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="merge_call"):
        model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=4, verbose=0)


@pytest.mark.skipif(BACKEND == "torch", reason="only on tensorflow and jax: the fault")
def test_keras_set_weights_of_an_adapted_normalization_leaves_its_constants():
    layer, copy = (keras.layers.Normalization() for _ in range(2))
    layer.adapt(np.array([[3.0], [5.0]]))
    copy.build((None, 1))
    copy.set_weights(layer.get_weights())
    found, right = (keras.ops.convert_to_numpy(x(np.array([[5.0]]))) for x in (copy, layer))
    assert (found.item(), right.item()) == (5.0, 1.0)


def test_keras_constructor_of_a_functional_model_with_trainable_false_freezes_no_layer():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs), trainable=False)
    assert not model.trainable and model.layers[1].trainable


FAILED = 3


def fit_with_workers():
    """Train with TensorFlow's own multi-worker strategy, and exit with `FAILED` if `fit` raises."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    try:
        model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=4, verbose=0)
    except (TypeError, ValueError) as error:
        print(error)
        raise SystemExit(FAILED) from error


def fit_with_clipping():
    """Train on two CPUs, and exit with `FAILED` if each clips its own gradient.

    The gradients of the two examples are -2 and 6, and their mean is 2. Each replica has a half.
    """
    import tensorflow as tf

    make_cpus()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), dense])
        model.compile(keras.optimizers.SGD(1.0, clipvalue=1.5), "mse", jit_compile=False)
    model.fit(np.ones((2, 1)), np.array([[1.0], [-3.0]]), batch_size=2, shuffle=False, verbose=0)
    right, wrong = -1.5, 1.0 - 1.5
    kernel = dense.kernel.numpy().item()
    if abs(kernel - wrong) < 1e-6:
        raise SystemExit(FAILED)
    assert abs(kernel - right) < 1e-6


if __name__ == "__main__":
    if sys.argv[1:] == ["clip"]:
        fit_with_clipping()
    else:
        fit_with_workers()
