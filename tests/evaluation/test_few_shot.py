"""Few-shot accuracy, compared with an independent least-squares solver."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.evaluation import FewShotProtocol, few_shot, few_shot_accuracy
from keras_tokenlearner.evaluation.few_shot import choose


def _features(count, size, seed):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, size))
    labels = np.arange(count) % 4
    return centres[labels] + 1.5 * random.normal(size=(count, size)), labels


@pytest.mark.once("torch")
@pytest.mark.parametrize(("size", "shots"), [(6, 10), (60, 5)])
def test_few_shot_accuracy_equals_the_accuracy_of_least_squares(size, shots):
    """Ridge equals least squares with more rows: sqrt(l2) I in the inputs, zeros in the targets.

    The sizes select the primal and the dual form.
    """
    train, train_labels = _features(4 * shots, size, 0)  # every image is chosen
    test, test_labels = _features(100, size, 1)
    l2 = 2.0**6
    x = (train - train.mean(0)) / (train.std(0) + 1e-5)
    x = np.c_[x, np.full(len(x), 100.0)]
    targets = np.where(np.arange(4) == train_labels[:, None], 1.0, -1.0)
    stacked = np.r_[x, np.sqrt(l2) * np.eye(size + 1)]
    weights = np.linalg.lstsq(stacked, np.r_[targets, np.zeros((size + 1, 4))], rcond=None)[0]
    scores = np.c_[(test - train.mean(0)) / (train.std(0) + 1e-5), np.full(100, 100.0)] @ weights
    expected = np.mean(scores.argmax(1) == test_labels)
    found = few_shot_accuracy(train, train_labels, test, test_labels, shots, l2)
    assert found == pytest.approx(expected)
    assert 0.3 < found < 1  # chance is 0.25


def test_few_shot_of_several_data_sets_includes_their_average():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Activation("linear")])
    data = {
        name: (_features(80, 6, seed), _features(40, 6, seed + 1)) for seed, name in enumerate("ab")
    }
    found = few_shot(model, data, shots=(1, 5))
    assert set(found) == {"a", "b", "average"}
    for shots in (1, 5):
        assert found["average"][shots] == pytest.approx((found["a"][shots] + found["b"][shots]) / 2)
    (train, train_labels), (test, test_labels) = data["a"]
    expected = few_shot_accuracy(train, train_labels, test, test_labels, 5)
    assert found["a"][5] == pytest.approx(expected, abs=0.03)


@pytest.mark.once("torch")
def test_few_shot_accuracy_of_renumbered_labels_is_unchanged():
    train, labels = _features(40, 6, 0)
    test, test_labels = _features(40, 6, 1)
    plain = few_shot_accuracy(train, labels, test, test_labels, 5)
    assert few_shot_accuracy(train, labels * 7 + 3, test, test_labels * 7 + 3, 5) == plain


@pytest.mark.once("torch")
def test_few_shot_accuracy_of_labels_in_a_column_equals_the_accuracy_of_labels_with_one_axis():
    train, labels = _features(40, 6, 0)
    test, test_labels = _features(60, 6, 1)
    plain = few_shot_accuracy(train, labels, test, test_labels, 5)
    assert few_shot_accuracy(train, labels[:, None], test, test_labels[:, None], 5) == plain


@pytest.mark.once("torch")
@pytest.mark.parametrize("part", [0, 1], ids=["train", "test"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels[:5], r"labels of shape \(5,\) for 40 examples"),
        (lambda labels: labels / 2, "type float64"),
        (lambda labels: labels - 1, "from -1 to 2"),
        (lambda labels: np.eye(4)[labels], r"labels of shape \(40, 4\)"),
    ],
    ids=["few", "floats", "negative", "rows"],
)
def test_few_shot_with_wrong_labels_raises_before_any_prediction(part, change, words):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Activation("linear")])
    model.predict = None
    splits = [_features(40, 6, seed) for seed in range(2)]
    splits[part] = splits[part][0], change(splits[part][1])
    (train, labels), (test, test_labels) = splits
    with pytest.raises(ValueError, match=f"few_shot_accuracy: `t.*_labels`.*{words}"):
        few_shot_accuracy(train, labels, test, test_labels, 5)
    with pytest.raises(ValueError, match=f"few_shot: `labels`.*{words}"):
        few_shot(model, {"a": splits}, shots=(5,))


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shots": 5}, "`shots`.*shots=5"),
        ({"shots": (1, 0)}, r"`shots`.*shots=\(1, 0\)"),
        ({"shots": (1, 11)}, "`shots`.*shots=11.* 10 examples$"),
        ({"l2": -1.0}, "`l2`.*l2=-1.0"),
        ({"batch_size": 0}, "`batch_size`.*batch_size=0"),
        ({"seed": -1}, "`seed`.*seed=-1"),
    ],
    ids=str,
)
def test_few_shot_with_wrong_arguments_raises_before_any_prediction(arguments, words):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Activation("linear")])
    model.predict = None
    data = (np.zeros((40, 6)), np.arange(40) % 4), (np.zeros((4, 6)), np.arange(4))
    with pytest.raises(ValueError, match=f"few_shot: {words}"):
        few_shot(model, {"a": data}, **arguments)


@pytest.mark.once("torch")
@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_few_shot_accuracy_and_protocol_with_a_wrong_seed_raise(seed):
    features, labels = np.zeros((4, 6)), np.arange(4)
    with pytest.raises(ValueError, match=f"few_shot_accuracy: `seed`.*seed={seed!r}"):
        few_shot_accuracy(features, labels, features, labels, 1, seed=seed)
    with pytest.raises(ValueError, match=f"FewShotProtocol: `seed`.*seed={seed!r}"):
        FewShotProtocol(seed=seed)


@pytest.mark.once("torch")
@pytest.mark.parametrize("part", ["train", "test"])
def test_few_shot_accuracy_of_nan_features_is_zero(part):
    train, labels = _features(40, 6, 0)
    bad = np.full_like(train, np.nan)
    first, second = (bad, train) if part == "train" else (train, bad)
    assert few_shot_accuracy(first, labels, second, labels, 5) == 0


@pytest.mark.once("torch")
def test_few_shot_accuracy_of_too_few_examples_raises():
    train, labels = _features(40, 6, 0)
    with pytest.raises(ValueError, match="shots=11.* 10 examples$"):
        few_shot_accuracy(train, labels, train, labels, 11)


@pytest.mark.once("torch")
def test_choose_with_9_shots_includes_the_examples_chosen_with_2_shots():
    labels = np.random.default_rng(0).integers(0, 3, 60)
    few, many = choose(labels, 2, seed=5), choose(labels, 9, seed=5)
    assert many.shape == (3, 9)
    np.testing.assert_array_equal(many[:, :2], few)
    np.testing.assert_array_equal(labels[many], np.arange(3)[:, None].repeat(9, axis=1))


@pytest.mark.once("torch")
def test_few_shot_of_token_outputs_raises_before_any_prediction():
    tokens = keras.Sequential([keras.Input((3, 4)), keras.layers.Activation("linear")])
    tokens.predict = None
    data = (np.zeros((4, 3, 4)), np.arange(4)), (np.zeros((4, 3, 4)), np.arange(4))
    with pytest.raises(ValueError, match=r"few_shot: `model`.*\(None, 3, 4\)"):
        few_shot(tokens, {"a": data}, shots=(1,))
