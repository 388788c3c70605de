"""`torch.compile` of exported graphs, which contain no code of Keras: inference and training."""

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


def test_compiled_training_graph_has_the_gradients_of_the_model():
    """The model of docs/speed.md: `stateless_call` makes the variables inputs of the graph."""
    from torch._dynamo.utils import counters

    random = np.random.default_rng(0)
    model = create_model("tokenlearner_pico8_4at1", classes=5, classifier_activation=None)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    weights = [variable.value for variable in model.trainable_variables]

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList(weights)

        def forward(self, images):
            fixed = model.non_trainable_variables
            return model.stateless_call(list(self.weights), fixed, images, training=True)[0]

    images = torch.tensor(random.uniform(0, 255, (4, *model.input_shape[1:])), dtype=torch.float32)
    labels = torch.tensor([0, 1, 2, 3])
    sizes = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(Step(), (images,), dynamic_shapes=sizes)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(graph.module())

    def gradients(call, size):
        loss = torch.nn.functional.cross_entropy(call(images[:size]), labels[:size])
        return torch.autograd.grad(loss, weights)

    for size in (4, 3, 2):
        found = gradients(compiled, size)
        expected = gradients(lambda x: model(x, training=True), size)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 2
    before = model.predict_on_batch(images)
    optimizer = torch.optim.SGD(weights, 0.1)
    for weight, gradient in zip(weights, found, strict=True):
        weight.grad = gradient
    optimizer.step()
    after = model.predict_on_batch(images)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(compiled(images).detach(), after, atol=1e-4)
