"""Initial weights of Keras's initializers, which tests on JAX draw by numpy."""

import keras
import numpy as np
import pytest

SHAPE = (60, 50)
INITIALIZERS = {  # mean, standard deviation and largest absolute value
    "normal": (keras.initializers.RandomNormal(1.0, 0.5, seed=1), 1.0, 0.5, np.inf),
    "uniform": (keras.initializers.RandomUniform(-3.0, 3.0, seed=1), 0.0, 3**0.5, 3.0),
    # A normal distribution cut at two standard deviations has 0.8796 of its deviation.
    "truncated": (keras.initializers.TruncatedNormal(0.0, 0.5, seed=1), 0.0, 0.5 * 0.8796, 1.0),
    "glorot": (keras.initializers.GlorotUniform(seed=1), 0.0, (2 / 110) ** 0.5, (6 / 110) ** 0.5),
    "he": (keras.initializers.HeNormal(seed=1), 0.0, (2 / 60) ** 0.5, np.inf),
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_quick_initial_weights_have_the_moments_of_their_distribution(name):
    initializer, mean, deviation, most = INITIALIZERS[name]
    drawn = initializer(SHAPE)
    assert keras.ops.is_tensor(drawn)
    values = keras.ops.convert_to_numpy(drawn)
    assert values.shape == SHAPE and values.dtype == np.float32
    assert values.mean() == pytest.approx(mean, abs=0.05 * deviation)
    assert values.std() == pytest.approx(deviation, rel=0.05)
    assert np.abs(values).max() <= most
    np.testing.assert_array_equal(values, keras.ops.convert_to_numpy(initializer(SHAPE)))


def test_quick_initial_weights_of_different_seeds_differ():
    one, other = (keras.initializers.GlorotUniform(seed=seed)(SHAPE) for seed in (1, 2))
    assert not np.array_equal(*map(keras.ops.convert_to_numpy, (one, other)))
