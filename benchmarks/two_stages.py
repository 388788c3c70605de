"""Students that reduce their tokens twice, to compare with one reduction of the same cost."""

import keras
import numpy as np

from keras_tokenlearner import retrofit
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.layers.cells import ancestors, grid_cells
from keras_tokenlearner.models.structure import Structure


def two_stages(
    teacher: keras.Model, first: tuple[int, int], second: tuple[int, int]
) -> keras.Model:
    """Return a student with two TokenLearners and proportional attention.

    Both TokenLearners start from the grid. A token of the second TokenLearner starts as the average
    of the tokens in its cell.

    Args:
        teacher: A plain ViT without rotary positions.
        first: Block after the first TokenLearner, and its number of tokens.
        second: Block after the second TokenLearner, and its number of tokens. Both TokenLearners
            must not precede the same block.
    """
    structure = Structure("two_stages", teacher)
    prefix = structure.num_prefix_tokens
    upper, lower = retrofit(teacher, *first), retrofit(teacher, *second)
    between = [f"block_{index}" for index in range(first[0], second[0])]
    learner = TokenLearner.from_config(upper.get_layer("token_learner").get_config())

    def clone(layer: keras.Layer) -> keras.Layer:
        settings = layer.get_config()
        if layer.name == "token_learner":
            settings |= {"name": "token_learner_1", "grid": (1, first[1])}
        if layer.name in between:  # they weigh tokens of the first TokenLearner
            settings = upper.get_layer(layer.name).get_config()
        return type(layer).from_config(settings)

    def call(
        layer: keras.Layer, *args: keras.KerasTensor, **kwargs: keras.KerasTensor
    ) -> keras.KerasTensor:
        if layer.name == between[0]:
            x = args[0]
            tokens = learner(x[:, prefix:])
            joined = keras.layers.Concatenate(axis=1, name="join_first")([x[:, :prefix], tokens])
            args = (joined if prefix else tokens,)
        return layer(*args, **kwargs)

    student = keras.models.clone_model(lower, clone_function=clone, call_function=call)
    parents = grid_cells(structure.grid, first[1]).parents
    bias = np.asarray(ancestors(parents, second[1]))[:, None] == np.arange(second[1])
    for layer in student.layers:
        if layer.name == "token_learner_1":
            own_cell = keras.ops.convert_to_numpy(learner.bias).max()
            layer.bias.assign(own_cell * bias[None].astype("float32"))
        elif layer.name in (*between, "token_learner"):
            layer.set_weights(upper.get_layer(layer.name).get_weights())
        elif layer.weights:
            layer.set_weights(lower.get_layer(layer.name).get_weights())
    return keras.Model(student.input, student.output, name=f"{lower.name}_{first[1]}at{first[0]}")
