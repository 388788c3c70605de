import keras
import numpy as np
import pytest

from keras_tokenlearner import _checks as checks
from tests.layers.helpers import refused


def test_values_that_pass_come_back_as_plain_types():
    assert checks.check_int("Owner", "size", np.int64(3)) == 3
    assert type(checks.check_int("Owner", "size", np.int64(3))) is int
    assert checks.check_ints("Owner", "grid", [2, 3], lengths=(2, 3)) == (2, 3)
    assert checks.check_rate("Owner", "rate", 0) == 0.0
    assert checks.check_positive("Owner", "scale", np.float32(2)) == 2.0
    assert checks.check_choice("Owner", "form", "conv", ("conv", "mlp")) == "conv"
    assert checks.check_channels("Owner", (None, None, 8), rank=3) == 8
    assert checks.check_heads("Owner", 2, 8) == 4
    assert checks.check_channels_last("Owner") is None


@pytest.mark.parametrize("value", [0, -1, "8", True, 2.5, None, (8,), float("nan")])
def test_integers(value):
    refused(lambda: checks.check_int("Owner", "size", value), f"Received: size={value!r}", "Owner")


@pytest.mark.parametrize("value", [8, (8,), (1, 2, 3, 4), "14", {2, 3}, None])
def test_tuples(value):
    refused(
        lambda: checks.check_ints("Owner", "grid", value, lengths=(2, 3)),
        "Owner: `grid` must be a tuple of 2 or 3 integers",
        f"Received: grid={value!r}",
    )


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, "0.1", True, None, float("nan")])
def test_rates(value):
    refused(lambda: checks.check_rate("Owner", "rate", value), f"Received: rate={value!r}")


@pytest.mark.parametrize("value", [0, -1, "1", True, None, float("nan")])
def test_positive_numbers(value):
    refused(lambda: checks.check_positive("Owner", "scale", value), f"Received: scale={value!r}")


@pytest.mark.parametrize(
    "value, hint",
    [("con", "Did you mean 'conv'?"), ("dense", "['conv', 'mlp']"), (None, "form=None")],
)
def test_choices(value, hint):
    refused(lambda: checks.check_choice("Owner", "form", value, ("conv", "mlp")), "Owner", hint)


def test_many_choices_stand_behind_the_nearest():
    choices = [f"choice_{number}" for number in range(40)]
    with pytest.raises(ValueError) as caught:
        checks.check_choice("Owner", "form", "choise_7", choices, "list_forms()")
    text = str(caught.value)
    assert "Did you mean 'choice_7'" in text and "form='choise_7'" in text
    assert "list_forms()" in text and "choice_20" not in text
    refused(lambda: checks.check_choice("Owner", "form", "x", choices), "form='x'", "choice_20")


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    refused(lambda: checks.check_channels_last("Owner"), "Owner: ", "channels_first")
