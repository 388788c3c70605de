"""Scores against manual counts and against scikit-learn."""

import itertools
import re

import ml_dtypes
import numpy as np
import pytest

from keras_tokenlearner.evaluation import (
    mean_average_precision,
    mean_class_accuracy,
    merge,
    real_accuracy,
    top_k_accuracy,
)

pytestmark = pytest.mark.once("torch")

RANDOM = np.random.default_rng(0)


def test_top_k_accuracy_equals_the_result_of_sorting():
    labels, scores = RANDOM.integers(0, 9, 50), RANDOM.normal(size=(50, 9))
    for k in (1, 5):
        best = np.argsort(-scores, axis=1)[:, :k]
        assert top_k_accuracy(labels, scores, k) == np.mean((best == labels[:, None]).any(1))


def test_top_k_accuracy_of_constant_scores_is_the_accuracy_of_chance():
    labels = np.array([0, 1, 2, 3])
    assert top_k_accuracy(labels, np.zeros((4, 4))) == 1 / 4
    assert top_k_accuracy(labels, np.zeros((4, 4)), k=3) == 3 / 4
    assert top_k_accuracy(labels, np.full((4, 4), np.nan)) == 0


@pytest.mark.parametrize("score", [top_k_accuracy, mean_class_accuracy])
def test_accuracy_of_labels_of_shape_n_1_equals_the_accuracy_of_shape_n(score):
    labels, scores = RANDOM.integers(0, 9, 50), RANDOM.normal(size=(50, 9))
    assert score(labels[:, None], scores) == score(labels, scores)


@pytest.mark.parametrize("score", [top_k_accuracy, mean_class_accuracy])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], r"labels of shape \(2,\) for 3 examples"),
        ([0.0, 1.0, 1.0], "type float64"),
        ([0, 1, 4], "from 0 to 4"),
        ([0, 1, -1], "from -1 to 1"),
        (np.eye(4)[:3], r"labels of shape \(3, 4\)"),
    ],
    ids=str,
)
def test_top_k_and_mean_class_accuracy_with_wrong_labels_raise(score, labels, words):
    with pytest.raises(ValueError, match=f"{score.__name__}: `labels`.*{words}"):
        score(labels, np.zeros((3, 4)))


def test_mean_class_accuracy_equals_a_manual_count():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    scores = np.eye(4)[[0, 0, 0, 1, 1, 2, 0]]
    assert mean_class_accuracy(labels, scores) == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)


def test_real_accuracy_equals_a_manual_count():
    scores = np.eye(3)[[0, 1, 2, 1]]
    assert real_accuracy([[0, 2], [2], [], [1]], scores) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="`label_lists`.* 1 lists, 4 scores"):
        real_accuracy([[0]], scores)
    with pytest.raises(ValueError, match="`label_lists`.* 2 empty"):
        real_accuracy([[], []], scores[:2])


@pytest.mark.parametrize("label", [0, 1])
def test_accuracies_of_nan_scores_are_zero(label):
    labels, scores = np.array([label]), np.full((1, 2), 0.0)
    scores[0, label] = np.nan
    assert top_k_accuracy(labels, scores) == top_k_accuracy(labels, scores, k=2) == 0
    assert mean_class_accuracy(labels, scores) == 0
    assert real_accuracy([[0, 1]], scores) == 0


def test_mean_average_precision_ranks_nan_positives_last_and_nan_negatives_first():
    targets, finite = np.array([[1], [0], [1], [0]]), np.array([[4.0], [3.0], [2.0], [1.0]])
    for places in itertools.product([False, True], repeat=4):
        is_nan = np.array(places)[:, None]
        found, _ = mean_average_precision(targets, np.where(is_nan, np.nan, finite))
        wrong = np.where(is_nan, np.where(targets, -9.0, 9.0), finite)
        assert found == mean_average_precision(targets, wrong)[0] <= 5 / 6


def test_mean_average_precision_equals_a_manual_count():
    # Positives are first, third and fourth: (1/1 + 2/3 + 3/4) / 3.
    targets, scores = np.array([[1], [0], [1], [1], [0]]), -np.arange(5.0)[:, None]
    mean, skipped = mean_average_precision(targets, scores)
    assert (mean, skipped) == (pytest.approx((1 + 2 / 3 + 3 / 4) / 3), 0)


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_equals_scikit_learn(ties):
    metrics = pytest.importorskip("sklearn.metrics", reason="pip install scikit-learn")
    targets = (RANDOM.random((200, 12)) < 0.15).astype(int)
    targets[:, 3] = 0
    scores = RANDOM.normal(size=targets.shape)
    if ties:
        scores = np.round(scores)
    mean, skipped = mean_average_precision(targets, scores)
    expected = [
        metrics.average_precision_score(targets[:, c], scores[:, c]) for c in range(12) if c != 3
    ]
    assert mean == pytest.approx(np.mean(expected), abs=1e-12)
    assert skipped == 1


def test_mean_average_precision_without_positives_or_of_unequal_shapes_raises():
    with pytest.raises(ValueError, match=r"`targets`.*\(3, 2\), all 0"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 3\)"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 3)))


def test_merge_returns_the_mean_or_maximum_of_the_views_of_each_example():
    scores = np.array([[0.0, 4.0], [1.0, 1.0], [2.0, 0.0]])
    names, mean = merge(["b", "a", "b"], scores)
    assert names.tolist() == ["a", "b"]
    np.testing.assert_array_equal(mean, [[1.0, 1.0], [1.0, 2.0]])
    np.testing.assert_array_equal(merge(["b", "a", "b"], scores, "max")[1], [[1, 1], [2, 4]])
    with pytest.raises(ValueError, match="Received: how='sum'"):
        merge([0, 0, 0], scores, "sum")
    with pytest.raises(ValueError, match="`groups`.* 1 entries, 3 views"):
        merge([0], scores)


@pytest.mark.parametrize(
    "score",
    [
        lambda scores: top_k_accuracy([0, 1], scores),
        lambda scores: mean_class_accuracy([0, 1], scores),
        lambda scores: real_accuracy([[0], [1]], scores),
        lambda scores: mean_average_precision(np.ones(scores.shape), scores),
    ],
    ids=["top_k", "mean_class", "real", "mean_average_precision"],
)
@pytest.mark.parametrize("shape", [(2,), (2, 3, 4)], ids=str)
def test_metrics_with_scores_of_a_wrong_rank_raise(score, shape):
    with pytest.raises(ValueError, match=rf"`scores`.*{re.escape(str(shape))}"):
        score(np.zeros(shape))


def test_merge_of_bfloat16_scores_computes_the_mean_in_float32():
    scores = np.ones((1000, 1), ml_dtypes.bfloat16)  # a sum in bfloat16 ends at 256
    merged = merge(np.zeros(1000, int), scores)[1]
    assert merged.dtype == np.float32 and merged.item() == 1
