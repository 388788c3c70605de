"""Checks of every layer and every model on the backend that `KERAS_BACKEND` selects.

Each layer and each model is a *case*. New cases go to `tests/layers/cases.py` or
`tests/models/cases.py`. The checks are plain functions of a case, for tests to parametrise over:
`LAYER_CASES x (LAYER_CHECKS + MODEL_CHECKS)`, `MODEL_CASES x MODEL_CHECKS`. `parameters` marks the
checks that do not depend on the backend.

Each backend is compared with `tests/data/conformance_outputs.npz`, which holds a few outputs of
every case from one backend. This command writes the file:

    KERAS_BACKEND=jax python -m tests.conformance --write
"""

import argparse
import functools
import inspect
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

OUTPUTS_FILE = Path(__file__).parent / "data" / "conformance_outputs.npz"
SAMPLES = 24  # numbers kept of each output


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A model to check.

    Attributes:
        name: Unique, the key of the outputs in `OUTPUTS_FILE`.
        build: Function without arguments that returns a new `keras.Model`.
        still: Weights that no training step can change. Each key is the ending of a weight's path,
            each value the reason.
        pixels: Whether inputs are drawn from [0, 255] instead of N(0, 1).
        float32: Names of layers that stay float32 under mixed precision.
    """

    name: str
    build: Callable
    still: dict = field(default_factory=dict)
    pixels: bool = True
    float32: tuple = ("predictions",)


@dataclass(frozen=True, eq=False)
class LayerCase:
    """A layer to check.

    Attributes:
        name: Unique, the key of the outputs in `OUTPUTS_FILE`.
        layer: Class of the layer.
        kwargs: Arguments of its constructor; prefer values that are not the defaults.
        shapes: Shape of each input, without the batch.
        dynamic: Shapes with `None` for sizes that may be unknown at build.
        other: Other shapes that fit `dynamic`, or `None` where the layer must refuse `dynamic`.
        call: Keyword arguments of the call of the layer.
        still: Weights that no training step can change. Each key is the ending of a weight's path,
            each value the reason.
    """

    name: str
    layer: type
    kwargs: dict
    shapes: tuple
    dynamic: tuple
    other: tuple | None = None
    call: dict = field(default_factory=dict)
    still: dict = field(default_factory=dict)
    pixels = False
    float32 = ()

    def make(self, **changes):
        return self.layer(**{**self.kwargs, "name": "layer", **changes})

    def build(self, shapes=None, **changes):
        inputs = [keras.Input(shape) for shape in shapes or self.shapes]
        return keras.Model(inputs, self.make(**changes)(*inputs, **self.call))


def array(shape, seed):
    """Return numbers from N(0, 1) that are the same on every backend."""
    return np.random.RandomState(seed).standard_normal(shape).astype("float32")


def arrays(shapes, batch=3, pixels=False):
    """Return an input for each shape."""
    values = [array((batch, *shape), seed=1000 + seed) for seed, shape in enumerate(shapes)]
    return [np.clip(128 + 64 * value, 0, 255) for value in values] if pixels else values


def model_arrays(case, model, batch=3):
    """Return inputs for the model of a case."""
    return arrays([tensor.shape[1:] for tensor in model.inputs], batch, case.pixels)


def assign_weights(layer):
    """Give every weight random values, so that no weight blocks a gradient and outputs are O(1).

    Moving variances of batch normalisations become positive, as after training.
    """
    for seed, weight in enumerate(layer.weights):
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4
        values = array(weight.shape, seed) / np.sqrt(fan_in)
        weight.assign(values**2 + 0.5 if weight.path.endswith("moving_variance") else values)


def to_numpy(outputs):
    """Return a list of float32 arrays of a tensor or a structure of tensors."""
    tensors = keras.tree.flatten(outputs)
    return [ops.convert_to_numpy(ops.cast(tensor, "float32")) for tensor in tensors]


def assert_close(found, expected, atol=1e-5, message=""):
    """Assert that two structures hold the same arrays, within `atol` of O(1) numbers."""
    found, expected = to_numpy(found), to_numpy(expected)
    assert len(found) == len(expected), message
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=atol, atol=atol, err_msg=message)


def sublayers(layer):
    """Return all layers that a layer holds, at any depth, in attributes, lists and dicts."""
    found = {}

    def visit(value):
        if isinstance(value, keras.Layer):
            if id(value) not in found:
                found[id(value)] = value
                visit(vars(value))
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif isinstance(value, (list, tuple, set)):
            for item in value:
                visit(item)

    visit(vars(layer))
    found.pop(id(layer), None)
    return list(found.values())


@functools.lru_cache(maxsize=2)  # the tests of one case run one after another
def built_model(case):
    """Return the model of a case with weights from `assign_weights`. Checks must not change it."""
    model = case.build()
    assign_weights(model)
    return model


def alone(items):
    """Return the form that Keras takes: a list, or the item itself if it is the only one."""
    return items if len(items) > 1 else items[0]


def predict(model, inputs, batch_size=None):
    """Return the outputs of a model, computed as the backend's graph or compiled program."""
    return model.predict(alone(inputs), batch_size=batch_size, verbose=0)


def called(model, inputs):
    """Return the outputs of a model in the quickest way: a call, or JAX's compiled program."""
    if keras.backend.backend() == "jax":
        return predict(model, inputs)
    return model(alone(inputs), training=False)


@functools.cache
def outputs(case):
    """Return the outputs of a model for three examples, in batches of two and one."""
    model = built_model(case)
    return to_numpy(predict(model, model_arrays(case, model), batch_size=2))


# Checks of layers


def check_config(case):
    """Every argument is in the config, which survives JSON and makes an equal layer."""
    layer = case.make()
    config = layer.get_config()
    for name in constructor_arguments(case.layer):
        assert name in config, f"{case.layer.__name__}.get_config() lacks {name}"
    for name, value in case.kwargs.items():
        assert config[name] == value, f"{name} was {value!r}, the config has {config[name]!r}"
    assert case.layer.from_config(config).get_config() == config
    from_json = case.layer.from_config(json.loads(json.dumps(config)))
    assert from_json.get_config() == config
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert keras.saving.deserialize_keras_object(saved).get_config() == config


def constructor_arguments(kind):
    """Return the names of a layer's arguments, through `**kwargs` to the parents."""
    names = {"name", "dtype", "trainable"}
    for parent in kind.__mro__:
        if parent is keras.Layer:
            break
        if "__init__" in vars(parent):
            parameters = inspect.signature(parent.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
            if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
                break
    return names - {"self"}


def check_build(case):
    """`build` creates the same weights as a call, and builds every child."""
    built, called = case.make(), case.make()
    built.build(*[(None, *shape) for shape in case.shapes])
    called(*[keras.KerasTensor((3, *shape)) for shape in case.shapes], **case.call)
    found, expected = (
        [(weight.path, tuple(weight.shape)) for weight in layer.weights]
        for layer in (built, called)
    )
    assert found == expected
    for child in sublayers(built):
        assert child.built, f"{case.layer.__name__}.build() leaves {child.name} unbuilt"


def check_shapes(case):
    """A symbolic call has the shape and type of an eager call."""
    layer = case.make()
    inputs = [keras.KerasTensor((None, *shape)) for shape in case.shapes]
    symbolic = keras.tree.flatten(layer(*inputs, **case.call))
    eager = keras.tree.flatten(layer(*arrays(case.shapes), **case.call))
    assert len(symbolic) == len(eager)
    for one, other in zip(symbolic, eager, strict=True):
        assert tuple(one.shape) == (None, *other.shape[1:])
        assert other.shape[0] == 3
        assert keras.backend.standardize_dtype(one.dtype) == "float32"
        assert keras.backend.standardize_dtype(other.dtype) == "float32"
    computed = layer.compute_output_shape(*[(None, *shape) for shape in case.shapes])
    assert tuple(computed) == tuple(symbolic[0].shape)


def check_dynamic_shapes(case):
    """A model built with unknown sizes accepts several sizes, or the layer refuses to build."""
    if case.other is None:
        with pytest.raises(ValueError, match=f"{case.layer.__name__}: .*known"):
            case.build(case.dynamic)
        return
    model = case.build(case.dynamic)
    assign_weights(model)
    assert_close(predict(model, arrays(case.shapes)), outputs(case), message=str(case.shapes))
    fixed, inputs = case.build(case.other), arrays(case.other)
    fixed.set_weights(model.get_weights())
    assert_close(predict(model, inputs), called(fixed, inputs), message=str(case.other))


def check_layer_precision(case):
    """A policy given to a layer reaches every sublayer."""
    model, mixed = built_model(case), case.build(dtype="mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    assert_bfloat16(mixed.get_layer("layer"), exceptions=())
    found = keras.tree.flatten(called(mixed, model_arrays(case, mixed)))
    assert all(keras.backend.standardize_dtype(value.dtype) == "bfloat16" for value in found)
    assert_rough(found, outputs(case))


def assert_bfloat16(layer, exceptions):
    """Assert that all layers compute in bfloat16 on float32 weights."""
    for child in [layer, *sublayers(layer)]:
        if child.name not in exceptions:
            assert child.compute_dtype == "bfloat16", f"{child.name}: {child.compute_dtype}"
    for weight in layer.weights:
        assert keras.backend.standardize_dtype(weight.dtype) == "float32", weight.path


def assert_rough(found, expected):
    """Assert that bfloat16 outputs are within 3% of float32 outputs, by root mean square."""
    for one, other in zip(to_numpy(found), to_numpy(expected), strict=True):
        error = np.sqrt(np.mean((one - other) ** 2))
        assert error <= 0.03 * np.sqrt(np.mean(other**2)) + 1e-3


# Checks of models, and of layers inside a model


def check_model_config(case):
    """The config of a model survives JSON and makes an equal model."""
    model = built_model(case)
    text = json.dumps(keras.saving.serialize_keras_object(model))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert json.dumps(keras.saving.serialize_keras_object(again)) == text
    assert again.count_params() == model.count_params()


def check_batches(case):
    """Any batch size runs, and an example's output does not depend on its batch."""
    model = built_model(case)
    order = [2, 0, 1]  # example 1 is alone in its batch; in `outputs`, example 2 is
    inputs = model_arrays(case, model)
    moved = to_numpy(predict(model, [x[order] for x in inputs], batch_size=2))
    for one, other, symbolic in zip(outputs(case), moved, model.outputs, strict=True):
        assert one.shape == other.shape == (3, *symbolic.shape[1:])
        assert_close(one[order], other)
        assert np.isfinite(one).all()


def check_precision(case):
    """All layers follow a global policy of mixed precision."""
    model = built_model(case)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = case.build()
    keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    assert_bfloat16(mixed, case.float32)
    assert_rough(called(mixed, model_arrays(case, mixed)), outputs(case))


def check_training_step(case):
    """One step of gradient descent changes every trainable weight."""
    model = built_model(case)
    built_model.cache_clear()  # the step changes the model
    inputs = model_arrays(case, model, batch=4)
    targets = [array((4, *tensor.shape[1:]), seed) for seed, tensor in enumerate(model.outputs)]
    before = {weight.path: ops.convert_to_numpy(weight).copy() for weight in model.weights}
    # At this rate, any gradient other than zero changes its weight. Adam would also change every
    # weight, but TensorFlow traces the step of Adam twice.
    model.compile(keras.optimizers.SGD(1e6), loss=["mse"] * len(targets))
    history = model.fit(
        alone(inputs),
        alone(targets),
        batch_size=4,
        verbose=0,
    )
    assert np.isfinite(history.history["loss"]).all()
    for ending in case.still:
        assert any(path.endswith(ending) for path in before), f"no weight ends with {ending}"
    for weight in model.trainable_weights:
        after = ops.convert_to_numpy(weight)
        assert np.isfinite(after).all(), weight.path
        if not any(weight.path.endswith(ending) for ending in case.still):
            assert not np.array_equal(after, before[weight.path]), f"{weight.path} did not change"


def check_saving(case):
    """A `.keras` file restores the outputs, a `.weights.h5` file the weights."""
    model = built_model(case)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        model.save_weights(f"{folder}/model.weights.h5")
        loaded = keras.saving.load_model(f"{folder}/model.keras")
        # JAX compiled the program for two examples for `outputs`.
        inputs = [value[:2] for value in model_arrays(case, loaded)]
        expected = [value[:2] for value in outputs(case)]
        assert_close(called(loaded, inputs), expected, atol=1e-6)
        loaded.set_weights([np.zeros(weight.shape) for weight in loaded.weights])
        loaded.load_weights(f"{folder}/model.weights.h5")
    for found, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def check_backends_agree(case):
    """The outputs equal the outputs in the file, which another backend may have written."""
    with np.load(OUTPUTS_FILE) as file:
        assert case.name in file, f"{case.name} is new: run `python -m tests.conformance --write`"
        assert_close(sample_outputs(case), file[case.name])


def sample_outputs(case):
    """Return some numbers of the outputs of a case, with weights and inputs from seeds."""
    found = outputs(case)
    places = [np.linspace(0, value.size - 1, SAMPLES).astype(int) for value in found]
    return np.stack([v.ravel()[place] for v, place in zip(found, places, strict=True)])


LAYER_CHECKS = (
    check_config,
    check_build,
    check_shapes,
    check_dynamic_shapes,
    check_layer_precision,
)
MODEL_CHECKS = (
    check_model_config,
    check_batches,
    check_precision,
    check_saving,
    check_backends_agree,
    check_training_step,  # the last, because it takes the model of the other checks
)


def parameters(checks, once=(check_config, check_model_config)):
    """Return parameters of a test. Checks of `once` do not depend on the backend."""
    return [
        pytest.param(
            check,
            id=check.__name__,
            marks=[pytest.mark.once("torch")] if check in once else [],
        )
        for check in checks
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write",
        action="store_true",
        help="compute the outputs of all cases again, and replace their file",
    )
    if not parser.parse_args().write:
        parser.error("nothing to do; pass --write")
    from tests.applications.cases import CATALOG_CASES
    from tests.layers.cases import LAYER_CASES
    from tests.models.cases import MODEL_CASES

    cases = (*LAYER_CASES, *MODEL_CASES, *CATALOG_CASES)
    np.savez_compressed(OUTPUTS_FILE, **{case.name: sample_outputs(case) for case in cases})
    print(f"{OUTPUTS_FILE}: {len(cases)} cases")


if __name__ == "__main__":
    main()
