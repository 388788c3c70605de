"""Class names of predictions, as `keras.applications` gives them."""

import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.applications import decode_predictions, preprocess_input
from tests.skips import peer


@pytest.mark.peers
def test_imagenet_1k_class_names_equal_more_than_950_names_of_torchvision():
    meta = peer("torchvision.models._meta")
    ours = [row[0][1] for row in decode_predictions(np.eye(1000), top=1)]
    theirs = meta._IMAGENET_CATEGORIES
    same = [one.lower() == other.lower() for one, other in zip(ours, theirs, strict=True)]
    assert sum(same) > 950  # torchvision spells some names differently: "crane bird", "mouse"


@pytest.mark.once("torch")
def test_decode_predictions_sorts_scores_and_accepts_other_class_names():
    scores = np.array([[0.1, 0.7, 0.2]])
    assert decode_predictions(scores, top=2, class_names=("a", "b", "c")) == [
        [("1", "b", 0.7), ("2", "c", 0.2)]
    ]
    many = np.zeros((1, 21843))
    many[0, 2] = 1.0
    assert decode_predictions(many, top=1)[0][0][0].startswith("n0")


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (np.zeros((1, 7)), {}, "class_names=model.class_names.*7"),
        (np.zeros(1000), {}, "`preds`.*1000"),
        (np.zeros((1, 3)), {"class_names": ("a",)}, "`class_names`.*1 names"),
        (np.zeros((1, 1000)), {"top": 0}, "`top`.*0"),
    ],
)
def test_decode_predictions_with_wrong_arguments_raises(scores, options, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(scores, **options)


@pytest.mark.once("torch")
def test_preprocess_input_returns_its_input_unchanged():
    pixels = np.arange(12.0)
    assert preprocess_input(pixels) is pixels


@pytest.mark.once("torch")
def test_create_model_with_weights_imagenet_raises_and_names_a_preset():
    with pytest.raises(ValueError, match="weights='vit_base_patch16_224.augreg2_in21k_ft_in1k'"):
        create_model("vit_b16", weights="imagenet")
