"""Learning rates for each depth, against steps in numpy."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.data import Batches
from keras_tokenlearner.training import Resume, adamw, muon
from keras_tokenlearner.training.layer_rates import depths_of
from keras_tokenlearner.training.optimizers import sgd

DECAY = 0.5
# Layers of `tokenlearner_pico8_4at1_fuser`, and the power of `layer_decay` of each.
POWERS = {
    "embedding": 3,
    "positions": 3,
    "block_0": 2,
    "token_learner_1": 1,
    "block_1": 1,
    "token_fuser_1": 1,
    "norm": 0,
    "head": 0,
}


def sgd_steps(weight, gradients, rate, decay):
    """SGD with momentum 0.9."""
    speed = np.zeros_like(weight)
    for gradient in gradients:
        speed = 0.9 * speed - rate * gradient
        weight = weight + speed
    return weight


def adamw_steps(weight, gradients, rate, decay):
    """AdamW as in Loshchilov and Hutter's paper, with Keras's epsilon."""
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        root = np.sqrt(square / (1 - 0.999**step))
        moved = mean / (1 - 0.9**step) / (root + 1e-7 / np.sqrt(1 - 0.999**step))
        weight = weight - rate * decay * weight - rate * moved
    return weight


def model_and_gradients(name="tokenlearner_pico8_4at1_fuser", steps=3):
    model, random = create_model(name, classes=3), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    shapes = [weight.shape for weight in model.trainable_variables]
    return model, [[random.normal(size=shape) for shape in shapes] for _ in range(steps)]


def values(model):
    return [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]


def apply(optimizer, model, gradients):
    """Return the variables after steps with gradients, taken as `fit` does on each backend."""
    optimizer.build(model.trainable_variables)
    gradients = [[keras.ops.convert_to_tensor(g, "float32") for g in step] for step in gradients]
    if keras.backend.backend() != "jax":
        for step in gradients:
            optimizer.apply(step)
        return values(model)
    found = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in optimizer.variables]
    for step in gradients:
        found, state = optimizer.stateless_apply(state, step, found)
    return [np.asarray(value) for value in found]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_layer_decay_steps_equal_a_numpy_implementation(kind):
    model, gradients = model_and_gradients()
    before = [value.astype("float64") for value in values(model)]
    many = {"steps": 10**9, "global_clipnorm": 1.0, "layer_decay": DECAY}
    optimizer = sgd(0.1, **many) if kind == "sgd" else adamw(0.1, weight_decay=0.3, **many)
    found = apply(optimizer, model, gradients)
    norms = [np.sqrt(sum((g**2).sum() for g in step)) for step in gradients]
    oracle = sgd_steps if kind == "sgd" else adamw_steps
    for index, variable in enumerate(model.trainable_variables):
        rate = 0.1 * DECAY ** POWERS[variable.path.split("/")[0]]
        clipped = [step[index] / norm for step, norm in zip(gradients, norms, strict=True)]
        spared = variable.path.split("/")[-1] in ("bias", "gamma", "beta", "table")
        expected = oracle(before[index], clipped, rate, 0.0 if spared else 0.3)
        np.testing.assert_allclose(found[index], expected, atol=1e-5, err_msg=variable.path)


def test_muon_with_layer_decay_moves_each_variable_by_its_factor():
    moves = []
    for decay in (1.0, DECAY):
        model, gradients = model_and_gradients(steps=1)
        before = values(model)
        optimizer = muon(0.1, 10**9, weight_decay=0.3, layer_decay=decay)
        after = apply(optimizer, model, gradients)
        moves.append([new - old for new, old in zip(after, before, strict=True)])
    for variable, whole, share in zip(model.trainable_variables, *moves, strict=True):
        factor = DECAY ** POWERS[variable.path.split("/")[0]]
        np.testing.assert_allclose(share, factor * whole, atol=2e-6, err_msg=variable.path)


def test_layer_decay_with_scaled_losses_gives_the_steps_of_unscaled_losses():
    found = []
    for scale in (None, 2.0**10):
        model, gradients = model_and_gradients()
        optimizer = adamw(0.1, 10**9, layer_decay=DECAY)
        if scale:  # as Keras scales losses for mixed_float16
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
            gradients = [[scale * gradient for gradient in step] for step in gradients]
        found.append(apply(optimizer, model, gradients))
    for plain, scaled in zip(*found, strict=True):
        np.testing.assert_allclose(scaled, plain, atol=1e-6)


@pytest.fixture
def training(tmp_path):
    """Return functions that build and train a model with layer decay, and the backup's folder."""
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 255, (8, 16, 16, 3)).astype("float32"), np.arange(8) % 3
    batches = Batches((x, y), 4)

    def make():
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        shape = {"input_shape": (16, 16, 3), "num_layers": 1, "hidden_dim": 8, "num_heads": 1}
        model = create_model("vit_pico8", classes=3, **shape)
        optimizer = adamw(1e-2, steps=6, layer_decay=DECAY)
        eager = keras.backend.backend() != "jax"  # eager is faster for a few steps
        model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=eager)
        return model

    def fit(model, epochs):
        resume = Resume(tmp_path / "backup.npz", batches)
        start = {"initial_epoch": resume.initial_epoch, "shuffle": False, "verbose": 0}
        model.fit(batches, epochs=epochs, callbacks=[resume], **start)
        return model.get_weights()

    return make, fit, tmp_path


def test_layer_decay_optimizer_resumed_gives_the_weights_of_an_uninterrupted_run(training):
    make, fit, folder = training
    model = make()
    fit(model, 1)
    model.save(folder / "model.keras")
    backup = (folder / "backup.npz").read_bytes()
    expected = fit(model, 2)
    for again in (make(), keras.saving.load_model(folder / "model.keras")):
        (folder / "backup.npz").write_bytes(backup)
        for array, same in zip(fit(again, 2), expected, strict=True):
            np.testing.assert_array_equal(array, same)


def test_layer_decay_of_a_model_without_blocks_raises():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="`layer_decay` .*`block_0`"):
        adamw(0.1, 10, layer_decay=0.5).build(model.trainable_variables)
    with pytest.raises(ValueError, match="`layer_decay`.* layer_decay=1.5"):
        sgd(0.1, 10, layer_decay=1.5)


def test_layer_decay_depth_of_a_token_learner_equals_the_depth_of_the_block_before_it():
    paths = ["embedding/conv_0/kernel", "block_0/a", "block_1/a", "token_learner/a", "block_2/a"]
    assert depths_of([*paths, "norm/gamma", "head/kernel"]) == [0, 1, 2, 2, 3, 4, 4]


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("paths", "depths"),
    [
        (["token_learner/a", "block_2/a", "head/kernel"], [2, 3, 4]),
        (["block_0/a", "token_learner/a", "block_2/a", "norm/a"], [1, 2, 3, 4]),
        (["embedding/a", "spatial_pooling/a", "block_1/a"], [0, 1, 2]),
        (["embedding/a", "token_learner/a", "block_0/a"], [0, 0, 1]),
        (["block_1/a", "token_learner/a", "head/kernel"], [2, 2, 3]),
    ],
    ids=str,
)
def test_layer_decay_depth_of_a_token_learner_includes_the_frozen_blocks_before_it(paths, depths):
    assert depths_of(paths) == depths


@pytest.mark.parametrize("head", ["dense/kernel", "dense_1/kernel", "dense_70/kernel"])
def test_layer_decay_depth_of_a_custom_head_does_not_depend_on_the_number_in_its_name(head):
    paths = ["conv2d_3/kernel", "rotary_1/a", "block_0/a", "block_1/a", "block_2/a", head]
    assert depths_of(paths) == [0, 2, 1, 2, 3, 4]
