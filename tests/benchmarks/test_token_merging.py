"""Token merging, against a loop over tokens."""

import keras
import numpy as np
import pytest

from benchmarks.token_merging import merge, merging_of_cost, token_merging
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.applications import create_model

pytestmark = pytest.mark.once("torch")


def merge_one(x, sizes, keys, merged):
    """Merge the tokens of one example one by one."""
    keys = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    sums = {index: x[index] * sizes[index] for index in range(len(x))}
    weights = {index: sizes[index, 0] for index in range(len(x))}
    odd = range(1, len(x), 2)
    best = {i: max(odd, key=lambda j, i=i: keys[i] @ keys[j]) for i in range(0, len(x), 2)}
    for i in sorted(best, key=lambda i: -keys[i] @ keys[best[i]])[:merged]:
        sums[best[i]] = sums[best[i]] + sums.pop(i)
        weights[best[i]] += weights.pop(i)
    order = [i for i in range(0, len(x), 2) if i in sums] + list(odd)
    return np.array([sums[i] / weights[i] for i in order]), np.array([weights[i] for i in order])


@pytest.mark.parametrize(("tokens", "merged"), [(9, 3), (8, 4), (6, 5)])
def test_token_merging_equals_a_loop_over_tokens(tokens, merged):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, tokens, 5)).astype("float32")
    keys = random.normal(size=(2, tokens, 4)).astype("float32")
    sizes = random.integers(1, 4, (2, tokens, 1)).astype("float32")
    found, found_sizes = map(keras.ops.convert_to_numpy, merge(x, sizes, keys, merged))
    np.testing.assert_allclose(found_sizes.sum(1), sizes.sum(1))
    for example in range(2):
        wanted, wanted_sizes = merge_one(x[example], sizes[example], keys[example], merged)
        np.testing.assert_allclose(found[example], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found_sizes[example, :, 0], wanted_sizes)


def test_token_merging_of_zero_tokens_keeps_the_outputs_of_the_model():
    model = create_model("vit_pico8", classes=3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    merging = token_merging(model, 0)
    np.testing.assert_allclose(
        merging.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_token_merging_for_a_target_cost_is_near_that_cost():
    model = create_model("vit_pico8", classes=3)
    plain = costs(model).macs
    found = costs(merging_of_cost(model, 0.6 * plain)).macs
    assert abs(found / plain - 0.6) < 0.1
    merging = token_merging(model, 4)
    assert merging.predict(np.zeros((1, 32, 32, 3)), verbose=0).shape == (1, 3)
    lengths = [merging.get_layer(f"merging_block_{i}").output[0].shape[1] for i in range(2)]
    assert lengths == [12, 8]


def test_token_merging_of_a_single_token_keeps_the_token():
    tokens, sizes = merge(np.ones((2, 1, 5), "float32"), np.ones((2, 1, 1), "float32"), None, 3)
    assert tokens.shape == (2, 1, 5) and sizes.shape == (2, 1, 1)
