import numpy as np
import pytest

from keras_tokenlearner.analysis.costs import count
from keras_tokenlearner.layers import SequencePositions
from tests.layers.helpers import close, refused, run
from tests.skips import peer


@pytest.mark.parametrize("grid", [(4, 6), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("channels", [8, 7])
def test_sequence_positions_are_sines_and_cosines_of_the_token_index(grid, channels):
    table = np.zeros((int(np.prod(grid)), channels))
    for n in range(len(table)):
        for c in range(channels):
            angle = n / 10000 ** (2 * (c // 2) / channels)
            table[n, c] = np.cos(angle) if c % 2 else np.sin(angle)
    layer = SequencePositions()
    x = np.ones((2, *grid, channels), "float32")
    close(run(layer, x), 1 + np.broadcast_to(table.reshape(*grid, channels), x.shape))
    assert not layer.weights
    assert count(layer, (*grid, channels)).elementwise == table.size


@pytest.mark.peers
def test_sequence_positions_equal_the_positions_of_videomae():
    videomae = peer("transformers.models.videomae.modeling_videomae")
    expected = videomae.get_sinusoid_encoding_table(24, 8).numpy()
    found = run(SequencePositions(), np.zeros((1, 2, 3, 4, 8), "float32"))
    close(found.reshape(1, 24, 8), expected)


@pytest.mark.once("torch")
def test_sequence_positions_of_an_unknown_grid_raise():
    refused(lambda: SequencePositions().build((None, None, 6, 8)), "(None, None, 6, 8)")
