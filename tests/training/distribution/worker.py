"""A short training, which every process of a test runs.

`CPUS=N python -m tests.training.distribution.worker MODE FOLDER EPOCHS MODEL`
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner import Distiller, create_model, retrofit
from keras_tokenlearner.data import Batches
from keras_tokenlearner.training.distribution import scope
from keras_tokenlearner.training.finite import StopOnNonFinite
from keras_tokenlearner.training.resume import Resume
from tests import quick_weights
from tests.training.distribution.launch import make_cpus

# Models without dropout, because several devices draw other random numbers than one.
MODELS = {
    "tokenlearner_pico8_4at1": {},
    "tokenlearner_x2plus1d_pico": {
        "input_shape": (4, 16, 16, 3),
        "stage_channels": (8,),
        "inner_channels": (16,),
        "stage_units": (2,),
        "replaced": (1,),
        "dropout_rate": 0.0,
    },
    "tokenlearner_vivit_l16_16at12": {
        "input_shape": (4, 32, 32, 3),
        "hidden_dim": 32,
        "num_layers": 2,
        "num_heads": 2,
        "at": 1,
        "num_tokens": 4,
    },
}


def run(mode, folder, epochs=2, name="tokenlearner_pico8_4at1"):
    """Train, score and predict; leave the results of this process in the folder."""
    keras.utils.clear_session()
    random = np.random.default_rng(0)
    with scope(mode) as devices:
        keras.utils.set_random_seed(0)
        model = _model(name)
        shape = getattr(model, "student", model).input_shape[1:]
        x = random.integers(0, 255, (48, *shape)).astype("float32")
        y = np.arange(48) % 10
        optimizer = keras.optimizers.SGD if name == "dense" else keras.optimizers.AdamW
        model.compile(
            # The limit is below the norm of every gradient, so each step clips.
            optimizer(1e-3, global_clipnorm=0.1),
            None if name == "distiller" else "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        batches = Batches((x, y), 16)
        resume = Resume(Path(folder) / "backup.npz", batches, devices=devices)
        history = devices.fit(
            model,
            batches,
            validation_data=(x[:40], y[:40]),
            validation_batch_size=16,
            callbacks=[StopOnNonFinite(devices=devices), resume],
            initial_epoch=resume.initial_epoch,
            epochs=int(epochs),
            verbose=0,
        )
        results = {
            "replicas": devices.replicas,
            "epochs": history.epoch,
            "history": history.history,
            "scores": devices.evaluate(model, (x, y), 16),
            "answers": devices.predict(model, x[:37], 16).tolist(),
            "weights": sum(float(np.abs(array).sum()) for array in devices.weights(model)),
            "divided": [weight.path for weight in model.weights if _divided(weight)],
        }
    (Path(folder) / f"{devices.process}.json").write_text(json.dumps(results))


def _model(name):
    if name == "dense":  # trained in seconds
        norm, dense = keras.layers.BatchNormalization(), keras.layers.Dense(10, "softmax")
        return keras.Sequential([keras.Input((4,)), norm, dense])
    if name == "distiller":
        teacher = create_model("vit_pico8", classes=10)
        return Distiller(retrofit(teacher, at=1, num_tokens=4), teacher, reconstruction_weight=0.5)
    return create_model(name, classes=10, **MODELS[name])


def _divided(weight):
    sharding = getattr(weight.value, "sharding", None)
    return sharding is not None and not sharding.is_fully_replicated


if __name__ == "__main__":
    make_cpus()
    quick_weights.draw_by_numpy()  # the weights of the tests' own process
    run(*sys.argv[1:])
