"""`Distiller`: the loss against a manual computation, every kind of data, budgets and devices."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import Distiller, create_model, retrofit, with_tokens
from keras_tokenlearner.data import ArrayImages, Batches, ImageBatches
from keras_tokenlearner.data.video import VideoBatches, from_folder
from keras_tokenlearner.training import Resume
from keras_tokenlearner.training.distillation.answers import answers as tensors_of_the_loss
from keras_tokenlearner.training.distillation.reconstruction import Reconstruction
from keras_tokenlearner.training.distribution import scope
from tests.data.video.files import write
from tests.models.test_retrofit import own_silu, pixels, teacher
from tests.skips import peer
from tests.training.test_distill import (
    HEADS,
    LABELS,
    answers,
    fine_tuned,
    log_softmax,
    parts_of_the_loss,
)
from tests.training.test_distill import IMAGES as PIXELS

IMAGES = PIXELS.astype("float32")
NUMPY = keras.ops.convert_to_numpy
ONE_HOT = np.eye(10, dtype="float32")[LABELS]


def pair(num_tokens=4, **changes):
    """Return a student and its teacher."""
    model = teacher(**{"class_token": True, **changes})
    return retrofit(model, at=1, num_tokens=num_tokens), model


def compiled(student, model, learning_rate=2e-4, metrics=("accuracy",), **arguments):
    distiller = Distiller(student, model, **arguments)
    distiller.compile(keras.optimizers.Adam(learning_rate), metrics=list(metrics))
    return distiller


@pytest.mark.parametrize("labels", [LABELS, ONE_HOT], ids=["integers", "rows"])
def test_distiller_loss_equals_a_manual_computation(labels):
    student, model = pair()
    distiller = compiled(student, model, temperature=3.0, feature_weight=0.7, label_weight=0.2)
    found = distiller.evaluate(IMAGES, labels, batch_size=24, verbose=0, return_dict=True)
    (logits, features), (student_logits, student_features) = answers(model), answers(student)
    soft, student_soft = log_softmax(logits / 3), log_softmax(student_logits / 3)
    divergence = 9 * (np.exp(soft) * (soft - student_soft)).sum(-1).mean()
    error = np.square(features - student_features).mean()
    entropy = -log_softmax(student_logits)[np.arange(24), LABELS].mean()
    wanted = 0.8 * (divergence + 0.7 * error) + 0.2 * entropy
    assert found["loss"] == pytest.approx(wanted, rel=5e-3)
    assert found["student_loss"] == pytest.approx(entropy, rel=5e-3)
    assert found["accuracy"] == pytest.approx(np.mean(student_logits.argmax(1) == LABELS))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_distiller_sample_weights_multiply_all_terms_of_the_loss(activation):
    """Integer weights act as if rows were repeated, because Keras divides by the batch size."""
    student, model = pair(classifier_activation=activation)
    distiller = compiled(student, model, reconstruction_weight=0.5, metrics=())
    counts = np.arange(24) % 3
    rows = np.repeat(np.arange(24), counts)
    assert len(rows) == 24
    arguments = {"batch_size": 24, "verbose": 0, "return_dict": True}
    found = distiller.evaluate(IMAGES, LABELS, sample_weight=counts, **arguments)
    wanted = distiller.evaluate(IMAGES[rows], LABELS[rows], **arguments)
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.once("torch")
def test_distiller_class_weights_change_all_terms_of_the_loss():
    student, model = pair()
    found = [
        compiled(student, model, learning_rate=0.0).fit(
            IMAGES, LABELS, batch_size=24, verbose=0, class_weight=dict.fromkeys(range(10), weight)
        )
        for weight in (1.0, 3.0)
    ]
    for name in ("loss", "distillation_loss", "student_loss"):
        once, thrice = (each.history[name][0] for each in found)
        assert thrice == pytest.approx(3 * once, rel=1e-4), name


def test_distiller_losses_of_batches_of_unequal_size_are_means_over_the_examples():
    student, model = pair()
    distiller = compiled(student, model)
    found = [
        distiller.evaluate(IMAGES, LABELS, batch_size=size, verbose=0, return_dict=True)
        for size in (24, 23)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize(("activation", "head"), HEADS)
def test_distiller_of_models_with_a_new_last_layer_compares_its_logits_and_trains_it(
    activation, head
):
    model = fine_tuned(activation, head)
    student = retrofit(model, at=1, num_tokens=4)
    divergence, error, entropy = parts_of_the_loss(model, student, activation, head, 2.0)
    distiller = compiled(student, model, 1e-2)
    found = distiller.evaluate(IMAGES, LABELS, batch_size=24, verbose=0, return_dict=True)
    assert found["distillation_loss"] == pytest.approx(divergence + error, rel=1e-2)
    assert found["student_loss"] == pytest.approx(entropy, rel=1e-2)
    before = [each.get_layer(head).get_weights()[0] for each in (student, model)]
    distiller.fit(IMAGES, LABELS, batch_size=8, verbose=0)
    after = [each.get_layer(head).get_weights()[0] for each in (student, model)]
    assert np.abs(after[0] - before[0]).max() > 1e-3
    np.testing.assert_array_equal(after[1], before[1])


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("sparse_categorical_crossentropy", id="name"),
        *(
            pytest.param(loss, id=name, marks=pytest.mark.once("torch"))
            for name, loss in (
                ("function", keras.losses.sparse_categorical_crossentropy),
                ("class", "SparseCategoricalCrossentropy"),
            )
        ),
    ],
)
def test_distiller_with_a_given_loss_applies_it_to_the_probabilities(loss):
    student, model = pair()
    kernel, bias = student.get_layer("head").get_weights()
    student.get_layer("head").set_weights([kernel / 10, bias])  # Keras clips small probabilities
    distiller = Distiller(student, model)
    distiller.compile("adam", loss)
    found = distiller.evaluate(IMAGES, LABELS, batch_size=24, verbose=0, return_dict=True)
    entropy = -log_softmax(answers(student)[0])[np.arange(24), LABELS].mean()
    assert found["student_loss"] == pytest.approx(entropy, rel=5e-3)


def test_distiller_of_a_float16_student_scales_its_losses():
    for dtype, scales in (("mixed_float16", True), ("float32", False)):
        distiller = compiled(*pair(dtype=dtype))
        assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer) is scales


def test_distiller_reconstruction_adds_the_token_error_to_the_loss():
    student, model = pair()
    distiller = compiled(student, model, reconstruction_weight=2.0, feature_weight=0.0)
    plain = compiled(student, model, feature_weight=0.0)
    both = [
        each.evaluate(IMAGES, batch_size=24, verbose=0, return_dict=True)["loss"]
        for each in (distiller, plain)
    ]
    block = "block_1"
    tokens, wanted = (
        keras.Model(m.input, m.get_layer(block).output)(IMAGES) for m in (student, model)
    )
    guessed = distiller._reconstructions[block](tokens)
    error = np.square(NUMPY(guessed) - NUMPY(wanted)).mean()
    assert both[0] - both[1] == pytest.approx(2 * error, rel=1e-3)
    weights = len(student.weights)
    distiller.fit(IMAGES, batch_size=8, verbose=0)
    assert len(student.weights) == weights  # the student gets no weights of the reconstruction


def test_reconstruction_layer_equals_its_equation():
    layer = Reconstruction(num_patches=6, num_prefix_tokens=1)
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype("float32")
    found = NUMPY(layer(x))
    mixed = np.einsum("bmc,mn->bnc", x[:, 1:], NUMPY(layer.kernel))
    wanted = mixed + NUMPY(layer.mlp(layer.norm(mixed)))
    np.testing.assert_allclose(found[:, 1:], wanted, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0], x[:, 0])


def test_distiller_loss_of_sigmoid_heads_is_the_mean_binary_divergence_of_the_classes():
    student, model = pair(classifier_activation="sigmoid")
    distiller = compiled(student, model, feature_weight=0.0, temperature=2.0, metrics=())
    found = distiller.evaluate(IMAGES, batch_size=24, verbose=0, return_dict=True)["loss"]
    p, q = (1 / (1 + np.exp(-answers(m)[0].astype("float64") / 2)) for m in (model, student))
    wanted = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found == pytest.approx(4 * wanted.mean(), rel=1e-2)


class Rows(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return IMAGES[rows], LABELS[rows]


def _tf_data():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)


def _loader():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(*map(torch.as_tensor, (IMAGES, LABELS)))
    return torch.utils.data.DataLoader(data, batch_size=8)


def _grain():
    grain = peer("grain")
    rows = [(IMAGES[i], LABELS[i]) for i in range(24)]
    return grain.MapDataset.source(rows).to_iter_dataset().batch(8)


def _batches():
    images = ArrayImages(IMAGES.astype("uint8"), LABELS)
    return ImageBatches(
        images,
        (32, 32, 3),
        batch_size=8,
        crop=0.5,
        label_mode="categorical",
        augment=lambda seed: keras.layers.MixUp(seed=seed),
    )


KINDS = {
    "arrays": lambda: Batches((IMAGES, LABELS), 8),
    "tf_data": _tf_data,
    "py_dataset": Rows,
    "loader": _loader,
    "grain": _grain,
    "image_batches": _batches,
}


@pytest.fixture(scope="module")
def in_scope():
    """Distillers for integer labels and for rows of labels, each with its teacher."""
    keras.utils.set_random_seed(0)
    return {rows: with_teacher() for rows in (False, True)}


def with_teacher():
    """Return a distiller, created in a distribution scope, and its teacher."""
    with scope("one_device"):
        student, model = pair()
        return compiled(student, model), model


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.peers if kind == "grain" else ()) for kind in KINDS],
)
def test_distiller_in_a_distribution_scope_learns_from_every_kind_of_data(kind, in_scope):
    """Training continues from one kind to the next, because a new distiller compiles for long.

    The loader has a new distiller. Its first batch then also builds the optimizer and metrics.
    """
    rows = kind == "image_batches"
    distiller, model = with_teacher() if kind == "loader" else in_scope[rows]
    of_teacher = model.get_weights()
    with scope("one_device"):
        # Mixed and cropped images lower the loss on plain images slowly.
        labels, epochs = (ONE_HOT, 16) if rows else (LABELS, 4)
        before = distiller.evaluate(IMAGES, labels, verbose=0)[0]
        history = distiller.fit(KINDS[kind](), epochs=epochs, shuffle=False, verbose=0).history
        after = distiller.evaluate(IMAGES, labels, verbose=0)[0]
    assert after < before
    assert set(history) == {"loss", "student_loss", "distillation_loss", "accuracy"}
    for values, old in zip(model.get_weights(), of_teacher, strict=True):
        np.testing.assert_array_equal(values, old)
    assert all(layer.trainable for layer in model.layers)


def test_distiller_video_student_learns_without_labels():
    changes = {"patch_size": (2, 8, 8), "input_shape": (4, 32, 32, 3)}
    student, model = pair(**changes)
    videos = pixels(6, 4, 32, 32, 3)
    distiller = compiled(student, model, reconstruction_weight=0.5)
    history = distiller.fit(videos, batch_size=3, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_distiller_with_video_files_trains_a_video_student(tmp_path):
    pytest.importorskip("av", reason="the extra `video`")
    for label, name in enumerate(("dark", "light")):
        (tmp_path / name).mkdir()
        for index in range(2):
            write(tmp_path / name / f"{index}.mp4", [40 + 120 * label + 5 * index] * 12)
    shape = (4, 32, 32, 3)
    student, model = pair(patch_size=(2, 8, 8), input_shape=shape)
    distiller = compiled(student, model, 1e-2, reconstruction_weight=0.5)
    before = {each: each.get_weights() for each in (*student.layers, model, distiller._teacher)}
    batches = VideoBatches(from_folder(tmp_path), shape, batch_size=2, threads=1)
    history = distiller.fit(batches, epochs=1, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "student_loss", "distillation_loss", "accuracy"}
    assert np.isfinite([*history.values()]).all() and history["loss"][0] > 0
    for each in (model, distiller._teacher):
        for values, old in zip(each.get_weights(), before[each], strict=True):
            np.testing.assert_array_equal(values, old)
    for name in ("token_learner", "block_1", "norm", "head"):
        layer = student.get_layer(name)
        pairs = zip(layer.get_weights(), before[layer], strict=True)
        assert any(np.abs(values - old).max() > 1e-4 for values, old in pairs), name


@pytest.mark.parametrize(
    "changes",
    [
        {"include_top": False, "pooling": "avg", "class_token": False},
        {"include_top": False, "register_tokens": 2},
    ],
    ids=str,
)
def test_distiller_of_models_without_head_learns_from_features_only(changes):
    student, model = pair(**changes)
    distiller = compiled(student, model)
    loss = distiller.evaluate(IMAGES, batch_size=24, verbose=0, return_dict=True)["loss"]
    found, wanted = NUMPY(student(IMAGES)), NUMPY(model(IMAGES))
    if found.ndim == 3:
        found, wanted = (
            np.concatenate([x[:, :3], x[:, 3:].mean(1, keepdims=True)], 1) for x in (found, wanted)
        )
    assert loss == pytest.approx(np.square(found - wanted).mean(), rel=1e-3)
    history = distiller.fit(IMAGES, batch_size=8, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_distiller_student_in_mixed_precision_learns():
    keras.config.set_dtype_policy("mixed_bfloat16")
    student, model = pair()
    distiller = compiled(student, model, reconstruction_weight=0.5)
    history = distiller.fit(IMAGES, LABELS, batch_size=8, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert student.get_layer("token_learner").compute_dtype == "bfloat16"


def test_distiller_keeps_frozen_layers_unchanged():
    student, model = pair()
    student.get_layer("block_0").trainable = False
    frozen = student.get_layer("block_0").get_weights()
    compiled(student, model).fit(IMAGES, LABELS, batch_size=8, verbose=0)
    for values, old in zip(student.get_layer("block_0").get_weights(), frozen, strict=True):
        np.testing.assert_array_equal(values, old)


@pytest.mark.once("torch")
def test_distiller_interrupted_resumes_to_the_weights_of_an_uninterrupted_run(tmp_path):
    def run(path, epochs):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        student, model = pair()
        distiller, batches = compiled(student, model), Batches((IMAGES, LABELS), 8)
        resume = Resume(path, batches)
        distiller.fit(
            batches,
            epochs=epochs,
            initial_epoch=resume.initial_epoch,
            callbacks=[resume],
            shuffle=False,
            verbose=0,
        )
        return student.get_weights()

    whole = run(tmp_path / "whole.npz", 2)
    run(tmp_path / "broken.npz", 1)
    for values, wanted in zip(run(tmp_path / "broken.npz", 2), whole, strict=True):
        np.testing.assert_array_equal(values, wanted)


def test_distiller_with_budgets_trains_every_number_of_tokens():
    student, model = pair(num_tokens=8)
    small = {m: compiled(with_tokens(student, m), model, metrics=()) for m in (2, 8)}
    before = {m: loss_on_all_images(each) for m, each in small.items()}
    distiller = compiled(student, model, 1e-3, budgets=(2, 8), reconstruction_weight=0.1)
    distiller.fit(IMAGES, batch_size=8, epochs=16, verbose=0)
    for budget, each in small.items():
        each.student.set_weights(with_tokens(student, budget).get_weights())
        assert loss_on_all_images(each) < before[budget], budget


def loss_on_all_images(distiller):
    """Return the distillation loss without labels."""
    return distiller.evaluate(IMAGES, batch_size=24, verbose=0, return_dict=True)["loss"]


def test_distiller_with_one_budget_has_the_loss_of_a_student_of_that_many_tokens():
    """A step with the budget 4 alone is a step of the model of `with_tokens(student, 4)`."""
    student, model = pair(num_tokens=8)
    small = with_tokens(student, 4)
    losses = [
        compiled(each, model, **arguments).train_on_batch(IMAGES, LABELS, return_dict=True)["loss"]
        for each, arguments in ((small, {}), (student, {"budgets": [4]}))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": 0.0}, ["temperature=0.0"]),
        ({"label_weight": 1.5}, ["label_weight=1.5"]),
        ({"feature_weight": -1.0}, ["feature_weight=-1.0"]),
        ({"reconstruction_weight": -1.0}, ["reconstruction_weight=-1.0"]),
        ({"budgets": (2, 9)}, ["budgets=(2, 9)", "4 tokens"]),
        ({"budgets": ()}, ["budgets=()"]),
        ({"budgets": (2, 0)}, ["budgets=(2, 0)"]),
        ({"budgets": 4}, ["budgets=4"]),
        ({"seed": -1}, ["seed=-1"]),
    ],
    ids=str,
)
def test_distiller_with_wrong_arguments_raises(arguments, words):
    student, model = pair()
    with pytest.raises(ValueError) as caught:
        Distiller(student, model, **arguments)
    assert all(word in str(caught.value) for word in ("Distiller", *words))


def test_distiller_of_unsuitable_models_budgets_or_labels_raises():
    student, model = pair()
    with pytest.raises(ValueError, match="Distiller: .*TokenLearner"):
        Distiller(model, model)
    with pytest.raises(ValueError, match=r"Distiller: `student` .*\(None, 7\)"):
        Distiller(student, create_model("vit_pico8", classes=7))
    with pytest.raises(ValueError, match="Distiller: `student` .*softmax and sigmoid"):
        Distiller(student, teacher(classifier_activation="sigmoid"))
    fused = retrofit(model, at=1, num_tokens=4, fuser="token_fuser")
    with pytest.raises(ValueError, match=r"Distiller: .*budgets=\(2, 4\) with token_fuser"):
        Distiller(fused, model, budgets=(2, 4))
    student, model = pair(include_top=False, pooling="avg")
    distiller = compiled(student, model, metrics=())
    with pytest.raises(ValueError, match="Distiller: .*`loss`.*outputs of shape"):
        distiller.fit(IMAGES, LABELS, verbose=0)


def test_distiller_of_a_wider_teacher_with_feature_weight_0_learns_from_the_logits():
    student, wide = retrofit(teacher(), at=1, num_tokens=4), teacher(hidden_dim=64)
    distiller = compiled(student, wide, feature_weight=0.0)
    history = distiller.fit(IMAGES, batch_size=8, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("of_student", "of_teacher", "arguments", "words"),
    [
        ({}, {"hidden_dim": 64}, {}, r"features.*feature_weight=0.*\(None, 32\) and \(None, 64\)"),
        (
            {"include_top": False, "class_token": True},
            {"include_top": False, "class_token": True, "register_tokens": 1},
            {},
            "`student`.*Received: 1 and 2",
        ),
        (
            {},
            {"num_layers": 1},
            {"reconstruction_weight": 1.0},
            r"`reconstruction_weight`.*block_1 with output None instead of \(16, 32\)",
        ),
        (
            {},
            {"hidden_dim": 64},
            {"reconstruction_weight": 1.0, "feature_weight": 0.0},
            r"`reconstruction_weight`.*block_1 with output \(16, 64\)",
        ),
        (
            {},
            {"hidden_dim": 64},
            {"behind": "block_0", "feature_weight": 0.0},
            r"`behind`.*\(None, 16, 32\) and \(None, 16, 64\)",
        ),
    ],
    ids=str,
)
def test_distiller_of_models_of_unequal_sizes_raises(of_student, of_teacher, arguments, words):
    student, model = retrofit(teacher(**of_student), at=1, num_tokens=4), teacher(**of_teacher)
    with pytest.raises(ValueError, match=f"Distiller: .*{words}"):
        Distiller(student, model, **arguments)


@pytest.mark.once("torch")
def test_distiller_with_reconstruction_of_a_student_without_later_blocks_raises():
    model = teacher()
    student = retrofit(model, at=2, num_tokens=4)
    with pytest.raises(ValueError, match="Distiller: `reconstruction_weight`.*Received: student"):
        Distiller(student, model, reconstruction_weight=1.0)


@pytest.mark.once("torch")
@pytest.mark.parametrize("nested", [False, True])
def test_distiller_of_a_teacher_with_an_own_activation_function_learns(nested):
    student, model = pair(activation=own_silu)
    if nested:
        inputs = keras.layers.Rescaling(1.0)(keras.Input(model.input_shape[1:]))
        body = teacher(input_tensor=inputs, activation=own_silu, include_top=False, pooling="avg")
        outputs = keras.layers.Dense(10, activation="softmax")(body.output)
        model = keras.Model(body.input, outputs)
    history = compiled(student, model).fit(IMAGES, LABELS, verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.once("torch")
@pytest.mark.parametrize("fuser", ["token_fuser", "unpool", "reproject"])
def test_distiller_with_reconstruction_of_a_student_with_fusers_raises(fuser):
    model = teacher()
    student = retrofit(model, at=1, num_tokens=4, fuser=fuser)
    with pytest.raises(ValueError, match="Distiller: `reconstruction_weight`.* fusers"):
        Distiller(student, model, reconstruction_weight=1.0)


@pytest.mark.once("torch")
@pytest.mark.parametrize("rotary", ["index", "centred", "learned"])
def test_distiller_with_the_argument_behind_and_rotary_positions_raises(rotary):
    model = teacher(rotary=rotary)
    with pytest.raises(ValueError, match="Distiller: `behind`.*`teacher`.*behind='block_0'"):
        Distiller(retrofit(model, at=1, num_tokens=4), model, behind="block_0")


@pytest.mark.once("torch")
@pytest.mark.parametrize(("kind", "fix"), [("int8", "`quantize`"), ("lora", "save_weights")])
def test_distiller_of_a_quantized_teacher_or_a_teacher_with_lora_raises(kind, fix):
    student, model = pair()
    if kind == "int8":
        model.get_layer("block_1").mlp.hidden.quantize("int8")
    else:
        model.get_layer("block_1").mlp.hidden.enable_lora(2)
    with pytest.raises(
        ValueError, match=f"(?i)Distiller: `teacher`.*{fix}.*teacher 'vit_pico8'.*{kind}"
    ) as caught:
        Distiller(student, model)
    assert "`model`" not in str(caught.value)


@pytest.mark.once("torch")
def test_distiller_of_a_teacher_inside_another_model_counts_its_prefix_tokens():
    student, model = pair(include_top=False)
    inputs = keras.Input((32, 32, 3))
    assert Distiller(student, keras.Model(inputs, model(inputs))).student is student
    more = teacher(include_top=False, class_token=True, register_tokens=1)
    for other in (more, keras.Model(inputs, more(inputs)), teacher(include_top=False)):
        with pytest.raises(ValueError, match="Distiller: `student` .*Received: 1 and [02]"):
            Distiller(student, other)


def test_distiller_of_a_teacher_with_an_adapted_normalization_uses_the_logits_of_the_teacher():
    base = teacher(include_top=False, pooling="avg")
    norm, features = keras.layers.Normalization(), NUMPY(base(IMAGES))
    norm.adapt(features)
    start = keras.initializers.RandomNormal(stddev=1.0, seed=0)
    logits = keras.layers.Dense(10, kernel_initializer=start)(norm(base.output))
    model = keras.Model(base.input, logits)
    distiller = Distiller(retrofit(model, at=1, num_tokens=4), model)
    found = distiller._teacher(IMAGES)["logits"]
    np.testing.assert_allclose(NUMPY(found), NUMPY(model(IMAGES)), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"dropout_rate": 0.1}, "block_0/mlp/hidden_dropout"),
        ({"attention_dropout_rate": 0.1}, "block_0/self_attention"),
        ({"drop_path_rate": 0.1}, "block_1"),
        ({}, "mine"),
        ({}, "normalization"),
        ({}, "regularized"),
    ],
    ids=str,
)
def test_distiller_with_budgets_of_a_student_that_changes_state_raises_on_jax(changes, part):
    base = teacher(include_top=False, pooling="avg", **changes)
    own = {
        "mine": keras.layers.Dropout(0.1, name="mine"),
        "normalization": keras.layers.BatchNormalization(name="normalization"),
        "regularized": keras.layers.Identity(activity_regularizer="l2", name="regularized"),
    }.get(part, keras.layers.Identity())
    model = keras.Model(base.input, keras.layers.Dense(10, "softmax")(own(base.output)))
    student = retrofit(model, at=1, num_tokens=4)
    if keras.backend.backend() != "jax":
        assert Distiller(student, model, budgets=(2, 4)).budgets == (2, 4)
        return
    with pytest.raises(ValueError, match=rf"Distiller: on JAX, `budgets`.*\(2, 4\) with .*{part}"):
        Distiller(student, model, budgets=(2, 4))


@pytest.mark.once("jax")
def test_distiller_with_budgets_of_a_student_with_a_frozen_batch_normalization_learns():
    base = teacher(include_top=False, pooling="avg")
    norm = keras.layers.BatchNormalization(name="normalization")
    model = keras.Model(base.input, keras.layers.Dense(10, "softmax")(norm(base.output)))
    student = retrofit(model, at=1, num_tokens=4)
    student.get_layer("normalization").trainable = False
    distiller = compiled(student, model, budgets=(2, 4))
    assert np.isfinite(distiller.train_on_batch(IMAGES, LABELS, return_dict=True)["loss"])


@pytest.mark.once("torch")
def test_features_and_logits_of_a_head_that_was_called_before_come_from_the_call_in_the_model():
    inputs, head = keras.Input((4,)), keras.layers.Dense(3, "softmax", name="mine")
    head(keras.layers.Rescaling(0.0)(inputs))
    model = keras.Model(inputs, head(keras.layers.Rescaling(2.0)(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    found = tensors_of_the_loss(model, 0, []).predict(x, verbose=0)
    np.testing.assert_allclose(found["features"], 2 * x, rtol=1e-6)
    probabilities = NUMPY(keras.ops.softmax(found["logits"]))
    np.testing.assert_allclose(probabilities, model.predict(x, verbose=0), atol=1e-6)
