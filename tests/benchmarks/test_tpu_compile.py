"""Training steps compile without a TPU, and exchange the expected data."""

import keras
import pytest

from keras_tokenlearner.training import RECIPES, with_settings

pytest.importorskip("libtpu", reason="pip install 'libtpu==0.0.42.*' to compile for TPUs")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only on jax: it compiles for TPUs"
)

SETTINGS = ["model=tokenlearner_pico8_4at1", "size=32"]


def compiled(mode, topology="v5e:2x2"):
    from benchmarks import tpu_compile

    recipe = with_settings(RECIPES["imagenet_384"](), SETTINGS)
    program = tpu_compile.lower(recipe, topology, mode, 16).compile()
    return recipe.build(1000).count_params(), program, tpu_compile.collectives(program.as_text())


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5e:4x4"])
def test_data_parallel_step_exchanges_the_gradients(topology):
    weights, program, exchanged = compiled("data_parallel", topology)
    assert set(exchanged) == {"all-reduce"}
    assert exchanged["all-reduce"][1] == pytest.approx(4 * weights, rel=0.02)  # float32
    assert program.memory_analysis().argument_size_in_bytes > 2 * 4 * weights  # with momentum


def test_model_parallel_step_exchanges_four_sums_per_block():
    _, _, exchanged = compiled("model_parallel:2")
    assert set(exchanged) == {"all-reduce"}
    assert 2 * 4 <= exchanged["all-reduce"][0] <= 2 * 4 + 3  # of two blocks, and gradients
