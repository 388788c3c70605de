"""Training steps on TensorFlow, which tests trace once."""

import keras
import numpy as np
import pytest


@pytest.mark.once("tensorflow")
@pytest.mark.parametrize("jit_compile", [True, False])
def test_fit_of_a_model_with_metrics_traces_its_training_step_once(jit_compile):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    traces, train_step = [], model.train_step
    model.train_step = lambda data: (traces.append(data), train_step(data))[1]
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile
    )
    history = model.fit(np.ones((8, 4)), np.zeros(8), batch_size=4, epochs=2, verbose=0).history
    assert len(traces) == 1
    assert history["loss"][1] < history["loss"][0]
    assert model.optimizer.iterations == 4
