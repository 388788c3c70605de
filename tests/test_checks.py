import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner import _checks as checks
from keras_tokenlearner._class_order import check_order
from keras_tokenlearner._errors import first_line
from tests.layers.helpers import refused

pytestmark = pytest.mark.once("torch")


def test_checks_of_valid_values_return_plain_types():
    assert checks.check_int("Owner", "size", np.int64(3)) == 3
    assert type(checks.check_int("Owner", "size", np.int64(3))) is int
    assert checks.check_ints("Owner", "grid", [2, 3], lengths=(2, 3)) == (2, 3)
    assert checks.check_rate("Owner", "rate", 0) == 0.0
    assert checks.check_positive("Owner", "scale", np.float32(2)) == 2.0
    assert checks.check_choice("Owner", "form", "conv", ("conv", "mlp")) == "conv"
    assert checks.check_channels("Owner", (None, None, 8), rank=3) == 8
    assert checks.check_heads("Owner", 2, 8) == 4
    assert checks.check_channels_last("Owner") is None


def _scalars(value, dtype):
    """Return a number as scalars of numpy and of the backend."""
    array = np.array(value, dtype)
    return [array[()], array, keras.ops.convert_to_tensor(array)]


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_check_int_of_a_scalar_array_returns_an_int(dtype):
    for scalar in _scalars(3, dtype):
        assert type(checks.check_int("Owner", "classes", scalar)) is int
        assert checks.check_int("Owner", "classes", scalar) == 3


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_check_number_of_a_scalar_array_returns_a_float(dtype):
    scalars = [keras.ops.convert_to_tensor(2, dtype)]
    for scalar in scalars if dtype == "bfloat16" else _scalars(2, dtype):
        for check in (checks.check_number, checks.check_positive, checks.check_not_negative):
            assert type(check("Owner", "scale", scalar)) is float
            assert check("Owner", "scale", scalar) == 2.0


@pytest.mark.every_backend
def test_check_numbers_returns_a_tuple_of_floats():
    for scalar in (0.5, np.float32(0.5), np.array(0.5), keras.ops.convert_to_tensor(0.5)):
        for value in (scalar, [scalar], (scalar,)):
            (found,) = checks.check_numbers("Owner", "mean", value, "numbers")
            assert type(found) is float and found == 0.5
    for value in (np.array([1, 2], "float32"), keras.ops.convert_to_tensor([1.0, 2.0])):
        assert checks.check_numbers("Owner", "mean", value, "numbers") == (1.0, 2.0)


@pytest.mark.parametrize(
    "value", ["0.5", None, True, (), (0.5, "a"), [float("nan")], 1j, {0.5}], ids=repr
)
def test_check_numbers_of_a_wrong_type_or_value_raises(value):
    refused(
        lambda: checks.check_numbers("Owner", "mean", value, "numbers"),
        "Owner: `mean` must be numbers",
        f"Received: mean={value!r}",
    )


def test_check_names_returns_a_tuple_of_plain_strings():
    for value in (["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], object)):
        found = checks.check_names("Owner", "names", value, 2, "names")
        assert found == ("a", "b") and {type(name) for name in found} == {str}
    assert checks.check_names("Owner", "names", [], 0, "names") == ()


@pytest.mark.parametrize(
    "value", ["ab", ["a"], ["a", 1], np.array([["a", "b"]]), None, 2], ids=repr
)
def test_check_names_of_a_wrong_type_or_number_raises(value):
    refused(
        lambda: checks.check_names("Owner", "names", value, 2, "words"),
        "Owner: `names` ",
        f"names={value!s}",
    )


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["a", "b"], ["a", "c"]),
        (["maillot", "maillot", "x"], ["maillot", "tank suit", "x"]),
        (["tank suit", "maillot", "x"], ["maillot", "maillot", "x"]),
        (["Crane", "crane", "x"], ["x", "crane", "machine"][::-1]),
        (["1", "2", "3"], ["0", "1", "2"]),
        (None, ["a"]),
        (["a"], None),
    ],
    ids=str,
)
def test_check_order_of_synonyms_duplicates_or_default_names_passes(names, others):
    check_order("Owner", "model", names, others, "`data`", "fix it")


@pytest.mark.parametrize(
    ("names", "others", "one"),
    [
        (["a", "b"], ["b", "a"], "a"),
        (["Cat", "dog"], ["dog", "cat"], "Cat"),
        (["x", "x", "b", "c"], ["x", "x", "c", "b"], "b"),
        (["0", "1", "2"], ["0", "2", "1"], "1"),
    ],
    ids=str,
)
def test_check_order_of_names_at_other_indices_raises(names, others, one):
    refused(
        lambda: check_order("Owner", "model", names, others, "`data`", "fix it"),
        "Owner: ",
        f"{one!r} as class {names.index(one)} of `model`",
    )


def test_check_path_replaces_a_tilde_by_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    assert checks.check_path("test", "path", "~/mine") == tmp_path / "mine"
    assert checks.check_path("test", "path", "a~/mine") == Path("a~/mine")


def test_first_line_of_an_error_without_message_is_the_name_of_its_class():
    assert first_line(ValueError("first\nsecond")) == "first"
    assert [first_line(kind()) for kind in (OSError, KeyError)] == ["OSError", "KeyError"]


@pytest.mark.every_backend
def test_check_bool_of_a_boolean_returns_a_bool():
    for value in (True, False):
        for scalar in (value, *_scalars(value, "bool")):
            assert checks.check_bool("Owner", "use_norm", scalar) is value


@pytest.mark.parametrize(
    "value", [0, 1, "False", "", None, 1.0, np.int64(1), [True], [], 10**18], ids=repr
)
def test_check_bool_of_a_wrong_type_raises(value):
    refused(lambda: checks.check_bool("Owner", "use_norm", value), f"Received: use_norm={value!r}")


@pytest.mark.parametrize(
    "value",
    [0, -1, "8", True, np.True_, 2.5, 3.0, None, (8,), float("nan"), np.array([3]), np.array("3")],
    ids=repr,
)
def test_check_int_of_a_wrong_type_or_range_raises(value):
    refused(lambda: checks.check_int("Owner", "size", value), f"Received: size={value!r}", "Owner")


@pytest.mark.parametrize("value", [2**31, 10**18, np.int64(2**40), 10**400])
def test_check_int_above_its_maximum_raises(value):
    refused(lambda: checks.check_int("Owner", "size", value), "2147483647", f"={value!r}")
    assert checks.check_int("Owner", "size", 2**31 - 1) == 2**31 - 1
    refused(lambda: checks.check_int("Owner", "size", 5, maximum=4), "4", "size=5")


@pytest.mark.parametrize("value", [8, (8,), (1, 2, 3, 4), "14", {2, 3}, None], ids=repr)
def test_check_ints_of_a_wrong_type_or_length_raises(value):
    refused(
        lambda: checks.check_ints("Owner", "grid", value, lengths=(2, 3)),
        "Owner: `grid` ",
        "2 or 3",
        f"Received: grid={value!r}",
    )


@pytest.mark.parametrize(
    "value", [(8, 0), [8, "8"], (8, True), (2**40, 8), (8, [8]), 8, "88", {8}], ids=repr
)
def test_check_ints_with_a_wrong_item_reports_the_whole_value(value):
    for lengths in ((2,), None):
        refused(
            lambda lengths=lengths: checks.check_ints("Owner", "grid", value, lengths),
            "Owner: `grid` ",
            f"Received: grid={value!r}",
        )
    assert checks.check_ints("Owner", "grid", range(1, 4)) == (1, 2, 3)
    assert checks.check_ints("Owner", "grid", ()) == ()


@pytest.mark.parametrize(
    "value", [(), ((8,),), ((8, 2), (8, 0)), ((8, 2), 8), [[8, 2**40]], 8, None], ids=repr
)
def test_check_pairs_with_a_wrong_item_reports_the_whole_value(value):
    refused(
        lambda: checks.check_pairs("Owner", "convs", value),
        "Owner: `convs` ",
        f"Received: convs={value!r}",
    )
    assert checks.check_pairs("Owner", "convs", [[8, np.int64(2)]]) == ((8, 2),)


def test_check_choice_with_an_unknown_part_reports_the_part_and_the_whole_value():
    refused(
        lambda: checks.check_choice("Owner", "unit", "con", ["conv", "mlp"], whole="mlp+con"),
        "Owner: ",
        "`unit`",
        "Received: unit='mlp+con' with 'con'. Did you mean 'conv'?",
    )


_NO_NUMBERS = ["0.1", True, None, float("nan"), float("inf"), -float("inf"), 10**400, [0.5], 1j]


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, *_NO_NUMBERS])
def test_check_rate_outside_its_interval_raises(value):
    refused(lambda: checks.check_rate("Owner", "rate", value), f"Received: rate={value!r}")


@pytest.mark.parametrize("value", [-0.1, 1.01, 2.0, *_NO_NUMBERS])
def test_check_fraction_outside_its_interval_raises(value):
    refused(lambda: checks.check_fraction("Owner", "part", value), f"Received: part={value!r}")
    assert [checks.check_fraction("Owner", "part", end) for end in (0, 1)] == [0.0, 1.0]


@pytest.mark.parametrize("value", [0, -0.1, 1.01, *_NO_NUMBERS])
def test_check_positive_fraction_outside_its_interval_raises(value):
    refused(
        lambda: checks.check_positive_fraction("Owner", "part", value), f"Received: part={value!r}"
    )
    assert [checks.check_positive_fraction("Owner", "part", x) for x in (1e-9, 1)] == [1e-9, 1.0]


@pytest.mark.parametrize("value", [0, -1, 1e-46, 1e39, *_NO_NUMBERS])
def test_check_positive_outside_the_float32_range_raises(value):
    refused(lambda: checks.check_positive("Owner", "scale", value), f"Received: scale={value!r}")


@pytest.mark.parametrize("value", [-1, -1e-9, 1e39, *_NO_NUMBERS])
def test_check_not_negative_of_a_negative_value_raises(value):
    refused(lambda: checks.check_not_negative("Owner", "decay", value), f"decay={value!r}")
    assert checks.check_not_negative("Owner", "decay", 0) == 0.0


@pytest.mark.parametrize("value", [0, 1, np.array([1, 2]), [1], {}, True], ids=repr)
def test_check_choice_of_a_wrong_type_raises(value):
    refused(lambda: checks.check_choice("Owner", "form", value, ("conv", False)), "form=")


@pytest.mark.parametrize(
    "value, hint",
    [("con", "'conv'?"), ("dense", "['conv', 'mlp']"), (None, "form=None")],
)
def test_check_choice_of_an_unknown_value_lists_the_choices(value, hint):
    refused(lambda: checks.check_choice("Owner", "form", value, ("conv", "mlp")), "Owner", hint)


def test_check_choice_of_many_choices_lists_the_nearest_choices_first():
    choices = [f"choice_{number}" for number in range(40)]
    with pytest.raises(ValueError) as caught:
        checks.check_choice("Owner", "form", "choise_7", choices, "list_forms()")
    text = str(caught.value)
    assert text.index("'choice_7'") < text.index("'choice_37'") and "form='choise_7'" in text
    assert "list_forms()" in text and "choice_20" not in text
    refused(lambda: checks.check_choice("Owner", "form", "x", choices), "form='x'", "choice_20")


def test_check_channels_last_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(
        lambda: checks.check_channels_last("Owner"), "Owner: ", "image_data_format='channels_first'"
    )
