"""Costs, compared with the tables of the paper and with manual counts."""

import functools

import keras
import pytest

from keras_tokenlearner import costs, create_model, feature_extractor
from keras_tokenlearner import layers as own
from keras_tokenlearner.analysis import catalog_costs, count, paper_costs
from keras_tokenlearner.analysis.costs import Cost
from keras_tokenlearner.analysis.paper_costs import COLUMNS, module_costs
from keras_tokenlearner.layers.multi_head_attention import MultiHeadAttention
from tests.layers.cases import LAYER_CASES

pytestmark = pytest.mark.once("torch")


@functools.cache  # not at import: each process of a run collects every test
def rows():
    return list(paper_costs())


@pytest.mark.parametrize("number", range(48))
def test_paper_costs_row_matches_the_printed_number_unless_its_note_explains_a_difference(number):
    row = rows()[number]
    assert tuple(row) == COLUMNS
    printed, ours = row["paper_gflops"], float(row["gflops"])
    if row["table"] == "3":
        # The paper prints parameters with a head of 18,291 classes.
        with_jft_head = float(row["mparams"]) + 1024 * (18291 - 1000) / 1e6
        assert with_jft_head == pytest.approx(float(row["paper_mparams"]), rel=0.01)
    elif "not identifiable" in row["note"]:
        assert 0.5 * float(printed) < ours < float(printed)
    elif int(row["table"]) >= 10:
        assert ours == pytest.approx(float(printed), rel=0.01)
        if row["paper_mparams"]:
            assert float(row["mparams"]) == pytest.approx(float(row["paper_mparams"]), rel=0.0101)
    elif "inconsistency" in row["note"] or "printed value" in row["note"]:
        assert ours != pytest.approx(float(printed), rel=0.01)
    elif len(printed.replace(".", "")) == 2:
        assert f"{ours:.1f}" == printed
    else:
        assert ours == pytest.approx(float(printed), rel=0.005)


def test_paper_costs_have_48_rows_of_nine_tables():
    assert len(rows()) == 48
    assert {row["table"] for row in rows()} == {"1", "2", "3", "4", "6", "8", "10", "11", "12"}


@pytest.mark.parametrize(
    ("name", "mparams"),
    [
        ("vit_s32", 22.9),
        ("vit_b32", 88.3),
        ("vit_b16", 86.9),
        ("vit_l16", 305.2),
        ("tokenlearner_b16_21_8at10", 150.7),
        ("tokenlearner_l16_35_16at12", 443.9),
        ("tokenlearner_l10_35_16at18_fuser", 447.9),
    ],
)
def test_parameters_of_catalogue_models_equal_the_numbers_in_the_paper(name, mparams):
    assert catalog_costs(name).params / 1e6 == pytest.approx(mparams, abs=0.06)


def test_transformer_block_cost_equals_a_manual_count():
    tokens, width, heads, hidden = 10, 32, 4, 128
    block = own.TransformerBlock(heads, hidden)
    block.build((None, tokens, width))
    macs = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * hidden
    cheap = (
        2 * 7 * tokens * width  # two norms
        + 4 * tokens * width  # biases of query, key, value and output
        + tokens * width  # the scale of the query
        + 4 * heads * tokens**2  # softmax
        + tokens * (hidden + width)  # biases of the MLP
        + 8 * tokens * hidden  # gelu
        + 2 * tokens * width  # residuals
    )
    cost = count(block, (tokens, width))
    assert (cost.macs, cost.elementwise) == (macs, cheap)
    assert cost.paper_flops == macs + cheap / 2


def test_bottleneck_flops_of_spatial_attention_equal_a_manual_count():
    """Count two operations per multiply-add, and 5 per element of a softmax."""
    frames, positions, width, heads, keys = 3, 20, 16, 2, 6
    layer = own.SpaceTimeAttention("spatial", num_heads=heads, key_dim=keys)
    layer.build((None, frames, 4, 5, width))
    cost = count(layer, (frames, 4, 5, width))
    pairs = positions**2
    macs = positions * width * (2 * keys + width) + pairs * (keys + width)
    scale = positions * keys
    assert cost.macs == frames * macs
    assert cost.softmax == frames * heads * pairs
    assert cost.elementwise == frames * (scale + 4 * heads * pairs)
    assert cost.bottleneck_flops == frames * (2 * macs + scale + 5 * heads * pairs)


def test_bottleneck_flops_of_a_convolution_include_its_padding():
    conv = keras.layers.Conv3D(4, (1, 3, 3), strides=(1, 2, 2), padding="same", use_bias=False)
    conv.build((None, 3, 5, 8, 2))
    assert count(conv, (3, 5, 8, 2)).bottleneck_flops == 2 * 3 * 3 * 4 * 9 * 2 * 4


def test_token_learner_module_cost_equals_a_manual_count_from_the_paper():
    """The count follows the paper's text literally, at the sizes of Tables 11 and 12."""
    pixels, tokens, per_frame, width = 64 * 8 * 8, 64 * 8, 8, 432
    macs = (
        pixels * 9 * width * per_frame  # alpha, a 3x3 convolution
        + pixels * per_frame * width  # the tokens
        + 3 * tokens * width**2  # queries, keys, values
        + tokens**2 * width  # weights times values
        + tokens**2 * width  # M, which mixes the tokens
        + pixels * width * per_frame  # beta
        + pixels * per_frame * width  # B_w Y
    )
    cheap = tokens**2 * width * (1 + 5)  # queries times keys, softmax
    found = module_costs("tokenlearner")
    assert found.total.bottleneck_flops == pytest.approx(2 * macs + cheap, rel=0.002)
    bias = tokens  # the paper's M has no bias
    weights = 9 * width * per_frame + 3 * width**2 + tokens**2 + bias + width * per_frame
    assert found.params == weights


@pytest.mark.parametrize(
    "layer",
    [own.PriorAttention(), own.MixerBlock(token_dim=6)],
    ids=["PriorAttention", "MixerBlock"],
)
def test_mixer_and_prior_attention_cost_equals_a_manual_count(layer):
    layer.build((None, 5, 8))
    macs = {"PriorAttention": 5 * 8 * 8 + 25 * 8, "MixerBlock": 2 * 8 * 5 * 6 + 2 * 5 * 8 * 8}
    assert count(layer, (5, 8)).macs == macs[type(layer).__name__]


def test_macs_of_a_convolution_exclude_its_padding():
    conv = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)
    conv.build((None, 5, 7, 2))
    cost = count(conv, (5, 7, 2))
    inside = (3 * 5 - 2) * (3 * 7 - 2) * 2 * 4
    assert cost.macs == inside
    assert cost.macs + cost.padding_macs == 5 * 7 * 9 * 2 * 4


def test_macs_of_a_dilated_convolution_exclude_its_padding():
    conv = keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2, use_bias=False)
    conv.build((None, 5, 7, 2))
    cost = count(conv, (5, 7, 2))
    assert cost.macs == (3 * 5 - 4) * (3 * 7 - 4) * 2 * 4  # two outer taps leave two positions each
    assert cost.macs + cost.padding_macs == 5 * 7 * 9 * 2 * 4


def test_costs_of_a_convolution_with_channels_first_raise():
    inputs = keras.Input((2, 5, 7))
    conv = keras.layers.Conv2D(4, 3, data_format="channels_first", name="conv")
    with pytest.raises(ValueError, match="costs: .*'conv' with data_format='channels_first'"):
        costs(keras.Model(inputs, conv(inputs)))


def test_token_learner_cost_equals_a_manual_count():
    layer = own.TokenLearner(4, num_convs=1)
    layer.build((None, 5, 7, 8))
    cost = count(layer, (5, 7, 8))
    assert cost.macs == (3 * 5 - 2) * (3 * 7 - 2) * 8 * 4 + 5 * 7 * 4 * 8
    assert cost.elementwise == 7 * 5 * 7 * 8 + 4 * 5 * 7 * 4


def test_conv_stem_cost_counts_each_frame_of_a_video():
    stem = own.ConvStem(8, ((4, 2), (8, 2)))
    stem.build((None, 5, 16, 12, 3))
    video, image = count(stem, (5, 16, 12, 3)), count(stem, (16, 12, 3))
    assert (video.macs, video.elementwise) == (5 * image.macs, 5 * image.elementwise)


def test_costs_of_a_catalogue_model_count_all_parameters_and_list_all_layers():
    import keras_tokenlearner

    for name, layer in (
        ("tokenlearner_pico8_4at1_fuser", "block_1"),
        ("x2plus1d_pico", "features"),
    ):
        model = keras_tokenlearner.create_model(name, classes=10)
        found = costs(model)
        assert found.params == model.count_params()
        assert set(found.layers) == {layer.name for layer in model.layers[1:]}
        assert layer in str(found)


@pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)
def test_cost_rules_cover_every_layer(case):
    model = case.build()
    found = costs(model)
    assert found.params == model.count_params()
    assert count.dispatch(case.layer) is not count.dispatch(keras.Layer)  # which counts nothing
    # These layers have no weights, but products with maps or cells.
    products = ("rotary_maps", "unpool", "unpool_sequence", "fixed_grid")
    has_products = case.name in products or any(
        len(weight.shape) > 1 for weight in _multiplied(model)
    )
    assert bool(found.macs) == has_products


def _multiplied(model):
    """Return the weights of a model except tables, which are added or concatenated to tokens."""
    return [weight for weight in model.weights if weight.name not in ("table", "token", "tokens")]


def test_direct_tokens_pooled_tokens_and_reproject_costs_equal_a_manual_count():
    direct, pooled = own.DirectTokens(3), own.PooledTokens(3, mlp_dim=5)
    for layer in (direct, pooled):
        layer.build((None, 2, 4, 6, 8))
    assert count(direct, (2, 4, 6, 8)).macs == 2 * (4 * 6 * 8) * (3 * 8)
    assert count(pooled, (2, 4, 6, 8)).macs == 2 * (8 * 5 + 5 * 3 * 8)
    reproject = own.Reproject(num_heads=2, mlp_dim=5)
    reproject.build((None, 3, 8), (None, 4, 6, 8))
    projections, products, mlp = (24 + 3) * 2 * 8 * 8, 2 * 24 * 3 * 8, 24 * 2 * 8 * 5
    assert count(reproject, (3, 8), (4, 6, 8)).macs == projections + products + mlp


def test_fixed_grid_and_spatial_pooling_costs_equal_a_manual_count():
    grid, pooling = own.FixedGrid(6), own.SpatialPooling((2, 4))
    for layer in (grid, pooling):
        layer.build((None, 2, 4, 6, 8))
    assert count(grid, (2, 4, 6, 8)).macs == 2 * 6 * (4 * 6) * 8
    cost = count(pooling, (2, 4, 6, 8))
    assert cost.macs == 0
    assert cost.elementwise == 2 * (4 * 4) * 8  # two columns fill no window


def test_unpool_cost_equals_a_manual_count():
    cost = count(own.Unpool(), (2 * 3, 8), (2, 4, 6, 3), (2, 4, 6, 8))
    assert cost.macs == 2 * (4 * 6) * 3 * 8  # each position sums the tokens of its frame
    assert cost.elementwise == 2 * 4 * 6 * 8  # residual


@pytest.mark.parametrize("attention", ["dot_product", "vector"])
def test_costs_of_a_block_with_mask_equal_the_costs_without_mask(attention):
    x, mask = keras.Input((5, 8)), keras.Input((5, 5), dtype="bool")
    block = own.TransformerBlock(2, 12, attention=attention)
    masked = costs(keras.Model([x, mask], block(x, attention_mask=mask)))
    assert masked.total == costs(keras.Model(x, block(x))).total


@pytest.mark.parametrize("others", [None, 7])
def test_costs_of_vector_attention_with_mask_equal_a_manual_count(others):
    query, value = keras.Input((5, 8)), keras.Input((others or 5, 8))
    mask = keras.Input((5, others or 5), dtype="bool")
    tokens = [query, value] if others else [query]
    model = keras.Model([*tokens, mask], own.VectorAttention()(*tokens, attention_mask=mask))
    length = others or 5
    projections = 5 * 8 * 8 + 2 * length * 8 * 8
    assert costs(model).macs == projections + 5 * length * 8


def test_costs_of_a_layer_called_twice_count_both_calls_and_its_parameters_once():
    first, second = keras.Input((3, 8)), keras.Input((5, 8))
    dense = keras.layers.Dense(4)
    found = costs(keras.Model([first, second], [dense(first), dense(second)]))
    assert found.macs == (3 + 5) * 8 * 4
    assert found.params == 8 * 4 + 4


def test_costs_of_a_feature_extractor_count_its_norm_once_per_block():
    extractor = feature_extractor(create_model("vit_pico8", classes=10), (0, 1), normalize=True)
    found = costs(extractor)
    assert found.layers["norm"].elementwise == 2 * 7 * 16 * 32
    assert found.params == extractor.count_params()


def test_costs_of_a_layer_without_a_rule_raise():
    class Odd(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(1,))

        def call(self, x):
            return x * self.w

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="costs: .* Odd.*'odd'"):
        costs(keras.Model(inputs, Odd(name="odd")(inputs)))


def test_costs_of_a_model_with_an_unknown_input_size_raise():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    with pytest.raises(ValueError, match=r"costs: .*\(None, None, 4\)"):
        costs(model)


def test_costs_of_a_nested_model_contain_its_inner_layers():
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")], name="inner")
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, inner(inputs))
    assert costs(outer).layers["inner/d"].macs == 32


def test_costs_function_adds_no_calls_to_the_layers_of_a_model():
    model = create_model("tokenlearner_pico8_4at1", classes=3)
    before = [len(layer._inbound_nodes) for layer in model.layers]
    costs(model)
    assert [len(layer._inbound_nodes) for layer in model.layers] == before


def test_costs_of_a_call_with_an_unused_argument_equal_the_costs_of_a_plain_call():
    inputs = keras.Input((4, 4))

    def built(**unused):
        flat = keras.layers.Flatten()(inputs, **unused)
        return keras.Model(inputs, keras.layers.Dense(2)(flat))

    assert costs(built(training=False)).macs == costs(built()).macs == 32


def test_costs_of_a_call_for_fewer_tokens_equal_a_manual_count():
    inputs = keras.Input((4, 6, 8))
    learner = own.TokenLearner(8, attention="mlp", bottleneck_dim=5, position_bias=True)
    few = costs(keras.Model(inputs, learner(inputs, num_tokens=3)))
    assert few.macs == 24 * (8 * 5 + 5 * 8) + 24 * 3 * 8  # the MLP computes all maps


@pytest.mark.parametrize("has_key", [False, True])
def test_costs_of_attention_layers_without_projections_equal_a_manual_count(has_key):
    query, value = keras.Input((5, 8)), keras.Input((7, 6 if has_key else 8))
    tensors = [query, value, *([keras.Input((7, 8))] if has_key else [])]
    channels = value.shape[-1]
    cost = costs(keras.Model(tensors, keras.layers.Attention()(tensors))).total
    assert cost.macs == 5 * 7 * (8 + channels) and cost.softmax == 5 * 7
    concat = keras.layers.Attention(score_mode="concat")
    additive = keras.layers.AdditiveAttention(use_scale=False)
    for layer in (concat, additive):
        cost = costs(keras.Model(tensors, layer(tensors))).total
        assert cost.macs == 5 * 7 * channels and cost.elementwise == 5 * 7 * (6 * 8 + 4)


@pytest.mark.parametrize(("axes", "macs"), [((1, 2), 5 * 7 * 8), (-1, 5 * 7 * 8)])
def test_costs_of_a_dot_layer_equal_a_manual_count(axes, macs):
    one = keras.Input((8, 5) if axes == (1, 2) else (5, 8))
    other = keras.Input((7, 8))
    model = keras.Model([one, other], keras.layers.Dot(axes)([one, other]))
    assert costs(model).macs == macs


def test_costs_of_a_softmax_layer_equal_the_costs_of_its_activation():
    inputs = keras.Input((5,))
    layer, activation = keras.layers.Softmax(), keras.layers.Activation("softmax")
    one, other = (costs(keras.Model(inputs, each(inputs))).total for each in (layer, activation))
    assert one == other and one.softmax == 5


def test_costs_of_a_matrix_product_outside_of_a_layer_raise():
    one, other = keras.Input((5, 8)), keras.Input((8, 7))
    with pytest.raises(ValueError, match="costs: .*Matmul"):
        costs(keras.Model([one, other], one @ other))


@pytest.mark.parametrize(("options", "width"), [({}, 12), ({"output_shape": 8}, 8)], ids=str)
def test_costs_of_multi_head_attention_with_an_output_shape_equal_a_manual_count(options, width):
    query, value, key = keras.Input((5, 12)), keras.Input((7, 6)), keras.Input((7, 10))
    layer = keras.layers.MultiHeadAttention(2, 3, value_dim=4, use_bias=False, **options)
    found = costs(keras.Model([query, value, key], layer(query, value, key)))
    projections = 5 * 12 * 6 + 7 * 10 * 6 + 7 * 6 * 8 + 5 * 8 * width
    assert found.macs == projections + 5 * 7 * (6 + 8)
    assert found.params == 12 * 6 + 10 * 6 + 6 * 8 + 8 * width


@pytest.mark.parametrize(("axes", "attended"), [(None, 3 * 5), ((1,), 3), ((-2,), 5)], ids=str)
def test_costs_of_multi_head_attention_over_some_axes_equal_a_manual_count(axes, attended):
    inputs = keras.Input((3, 5, 12))
    layer = keras.layers.MultiHeadAttention(2, 6, attention_axes=axes)
    found = costs(keras.Model(inputs, layer(inputs, inputs)))
    assert found.macs == 15 * 4 * 12**2 + 15 * attended * 2 * 12
    assert found.total.softmax == 2 * 15 * attended


def test_costs_of_gated_multi_head_attention_include_the_gate():
    inputs = keras.Input((5, 12))
    one, other = (
        costs(keras.Model(inputs, layer(inputs, inputs))).total
        for layer in (
            keras.layers.MultiHeadAttention(2, 6),
            keras.layers.MultiHeadAttention(2, 6, use_gate=True),
        )
    )
    assert other.macs - one.macs == 5 * 12 * 12
    assert other.elementwise - one.elementwise == 5 * 12 * (1 + 4 + 1)  # bias, sigmoid, product


def test_costs_of_attention_with_rotary_positions_are_equal_with_and_without_the_key_argument():
    tokens, table = keras.Input((5, 12)), keras.Input((5, 1, 4))
    layer = MultiHeadAttention(3, 4, rotary="interleaved")
    found = [
        costs(keras.Model([tokens, table], layer(tokens, tokens, rotation=table, **key))).total
        for key in ({}, {"key": tokens})
    ]
    assert found[0] == found[1]


def test_costs_of_a_nested_model_depend_on_the_input_shape_of_each_call():
    inner = keras.Sequential([keras.Input((None, 8)), keras.layers.Dense(4, name="d")], name="in")
    one, other = keras.Input((3, 8)), keras.Input((5, 8))
    found = costs(keras.Model([one, other], [inner(one), inner(other)]))
    assert found.layers["in/d"].macs == (3 + 5) * 8 * 4
    assert found.params == 8 * 4 + 4


def test_cost_rule_of_a_model_class_counts_a_nested_model_of_this_class():
    class Mine(keras.Model):
        def build(self, shape):
            self.dense = keras.layers.Dense(4)
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    @count.register(Mine)
    def _(layer, shape):
        return count(layer.dense, shape)

    inputs = keras.Input((8,))
    found = costs(keras.Model(inputs, Mine(name="mine")(inputs)))
    assert found.layers["mine"].macs == 32 and found.params == 36


def test_cost_rule_of_a_layer_with_an_argument_named_layer_gets_shapes_by_position():
    class Mine(keras.layers.Layer):
        def call(self, layer, inputs):
            return layer + inputs

    @count.register(Mine)
    def _(layer, *inputs):
        return Cost(macs=sum(size for (size,) in inputs))

    one, other = keras.Input((8,)), keras.Input((8,))
    assert costs(keras.Model([one, other], Mine()(one, other))).macs == 16


@pytest.mark.parametrize(
    ("tables", "received"),
    [("12", "tables='12'"), ((1, 4), "with 1"), (("1", "5"), "with '5'"), (4, "tables=4")],
    ids=str,
)
def test_paper_costs_of_unknown_tables_raise_before_the_first_row(tables, received):
    with pytest.raises(ValueError, match=f"paper_costs: .*`tables`.*{received}"):
        paper_costs(tables)


def test_paper_costs_of_one_table_have_the_rows_of_this_table():
    assert [row["table"] for row in paper_costs({"3"})] == ["3"] * 2
