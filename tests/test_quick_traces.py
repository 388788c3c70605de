"""Training steps on TensorFlow, which tests trace once."""

import keras
import numpy as np
import pytest


def counted(jit_compile):
    """Return a compiled model, and a list that gets an item at each trace of its training step."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    traces, train_step = [], model.train_step
    model.train_step = lambda data: (traces.append(data), train_step(data))[1]
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile
    )
    return model, traces


@pytest.mark.once("tensorflow")
@pytest.mark.parametrize("jit_compile", [True, False])
def test_fit_of_a_model_with_metrics_traces_its_training_step_once(jit_compile):
    model, traces = counted(jit_compile)
    history = model.fit(np.ones((8, 4)), np.zeros(8), batch_size=4, epochs=2, verbose=0).history
    assert len(traces) == 1
    assert history["loss"][1] < history["loss"][0]
    assert model.optimizer.iterations == 4


@pytest.mark.once("tensorflow")
def test_fit_with_a_strategy_runs_all_steps_of_an_execution():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse", jit_compile=False, steps_per_execution=2)
    model.fit(np.ones((8, 4)), np.ones((8, 3)), batch_size=2, verbose=0)
    assert model.optimizer.iterations == 4


@pytest.mark.once("tensorflow")
def test_train_on_batch_of_a_model_with_metrics_traces_its_training_step_once():
    model, traces = counted(jit_compile=False)
    losses = [model.train_on_batch(np.ones((8, 4)), np.zeros(8))[0] for _ in range(2)]
    assert len(traces) == 1
    assert losses[1] < losses[0]
    assert model.optimizer.iterations == 2
