"""`torch.compile` of a `.pt2` file, whose graph contains no code of Keras."""

import numpy as np
import pytest

from keras_tokenlearner import create_model, export

torch = pytest.importorskip("torch", reason="only on torch: the format is PyTorch's")
pytestmark = [pytest.mark.once("torch"), pytest.mark.slow]  # a C++ compiler runs


def test_compiled_pt2_file_equals_the_model_for_all_batch_sizes(tmp_path):
    from torch._dynamo.utils import counters

    random = np.random.default_rng(0)
    model = create_model("tokenlearner_pico8_4at1", classes=5)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    path = export(model, tmp_path / "model.pt2", format="pt2", check=False)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(torch.export.load(path).module())
    for size in (3, 2, 7):
        images = random.integers(0, 256, (size, *model.input_shape[1:])).astype("uint8")
        with torch.no_grad():
            found = compiled(torch.from_numpy(images))["probabilities"].numpy()
        expected = model.predict_on_batch(images.astype("float32"))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.ptp(found, axis=0).max() > 1e-3  # answers differ by image
    assert not counters["graph_break"]
    # The second size compiles the graph for all sizes.
    assert counters["stats"]["unique_graphs"] == 2
