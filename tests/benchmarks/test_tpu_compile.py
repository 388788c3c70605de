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
def test_data_parallel_step_compiled_for_tpus_exchanges_only_the_gradients(topology):
    weights, program, exchanged = compiled("data_parallel", topology)
    assert set(exchanged) == {"all-reduce"}
    assert exchanged["all-reduce"][1] == pytest.approx(4 * weights, rel=0.02)  # float32
    assert program.memory_analysis().argument_size_in_bytes > 2 * 4 * weights  # with momentum


def test_tpu_compile_with_a_mode_but_no_recipe_raises_and_names_the_option_recipe(capsys, tmp_path):
    from benchmarks import tpu_compile

    with pytest.raises(SystemExit):
        tpu_compile.main([str(tmp_path / "rows.csv"), "--mode", "model_parallel:4"])
    assert "--recipe" in capsys.readouterr().err


def test_model_parallel_step_compiled_for_tpus_has_four_all_reduces_per_block():
    _, _, exchanged = compiled("model_parallel:2")
    assert set(exchanged) == {"all-reduce"}
    assert 2 * 4 <= exchanged["all-reduce"][0] <= 2 * 4 + 3  # 4 per block, 3 for gradients
