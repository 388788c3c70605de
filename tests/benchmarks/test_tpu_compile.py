"""Training steps compile for TPUs that are not there, and exchange what they should."""

import keras
import pytest

from keras_tokenlearner.training import RECIPES, with_settings

pytest.importorskip("libtpu", reason="pip install 'libtpu==0.0.42.*' to compile for TPUs")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX compiles for TPUs")

SETTINGS = ["model=tokenlearner_pico8_4at1", "size=32"]


def compiled(mode):
    from benchmarks import tpu_compile

    recipe = with_settings(RECIPES["imagenet_384"](), SETTINGS)
    program = tpu_compile.lower(recipe, "v5e:2x2", mode, 8).compile()
    return recipe.build(1000).count_params(), program, tpu_compile.collectives(program.as_text())


def test_data_parallel_exchanges_the_gradients():
    weights, program, exchanged = compiled("data_parallel")
    assert set(exchanged) == {"all-reduce"}
    assert exchanged["all-reduce"][1] == pytest.approx(4 * weights, rel=0.02)  # float32
    assert program.memory_analysis().argument_size_in_bytes > 2 * 4 * weights  # with momentum


def test_model_parallel_exchanges_four_sums_a_block():
    _, _, whole = compiled("data_parallel")
    _, _, divided = compiled("model_parallel:4")
    assert set(divided) == {"all-reduce"}
    assert 2 * 4 <= divided["all-reduce"][0] <= 2 * 4 + 3
    assert divided["all-reduce"][1] < whole["all-reduce"][1]
