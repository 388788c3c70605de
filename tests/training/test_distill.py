"""`distill`: the loss against a manual computation, changed weights, caches and backups."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, distill, retrofit
from tests.models.test_retrofit import pixels, teacher

IMAGES = pixels(24, 32, 32, 3).astype("uint8")
LABELS = np.arange(24) % 10
ONE_STEP = {  # leaves the student unchanged, so its losses can be computed by hand
    "epochs": 1,
    "batch_size": 24,
    "learning_rate": 1e-12,
    "temperature": 3.0,
    "feature_weight": 0.7,
    "verbose": 0,
}
NUMPY = keras.ops.convert_to_numpy


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def answers(model, head="head"):
    """Return logits and features, computed layer by layer. `head` is the name of the last layer."""
    inner = keras.Model(model.input, model.get_layer(head).input)
    features = NUMPY(inner(IMAGES.astype("float32")))
    kernel, bias = model.get_layer(head).get_weights()
    return features @ kernel + bias, features


# Activations and names of a last dense layer.
HEADS = [
    ("softmax", "mine"),
    ("sigmoid", "mine"),
    pytest.param("softmax", "head", marks=pytest.mark.once("torch")),
    pytest.param("linear", "logits", marks=pytest.mark.once("torch")),
]


def fine_tuned(activation, name):
    """Return a ViT as in the README: a backbone with a new dense layer."""
    base = teacher(include_top=False, pooling="avg")
    start = keras.initializers.RandomNormal(stddev=1.0)
    head = keras.layers.Dense(10, activation, kernel_initializer=start, name=name)
    return keras.Model(base.input, head(base.output), name="flowers")


def parts_of_the_loss(model, student, activation, head, temperature):
    """Return the divergence, the error of the features, and the cross-entropy of `LABELS`."""
    (logits, features), (own, own_features) = (answers(each, head) for each in (model, student))
    error = np.square(features - own_features).mean()
    if activation == "sigmoid":
        p, q = (1 / (1 + np.exp(-x.astype("float64") / temperature)) for x in (logits, own))
        divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
        share = 1 / (1 + np.exp(-own.astype("float64")))
        hit = np.arange(10) == LABELS[:, None]
        return temperature**2 * divergence, error, -np.log(np.where(hit, share, 1 - share)).mean()
    soft, own_soft = log_softmax(logits / temperature), log_softmax(own / temperature)
    divergence = (np.exp(soft) * (soft - own_soft)).sum(-1).mean()
    return temperature**2 * divergence, error, -log_softmax(own)[np.arange(24), LABELS].mean()


def test_distill_losses_equal_a_manual_computation():
    model = teacher()
    student = retrofit(model, at=1, num_tokens=4)
    (logits, features), (student_logits, student_features) = answers(model), answers(student)
    soft, student_soft = log_softmax(logits / 3), log_softmax(student_logits / 3)
    divergence = 9 * (np.exp(soft) * (soft - student_soft)).sum(-1).mean()
    error = np.square(features - student_features).mean()
    entropy = -log_softmax(student_logits)[np.arange(24), LABELS].mean()
    history = distill(
        student,
        model,
        IMAGES,
        LABELS,
        **ONE_STEP,
        label_weight=0.2,
    ).history
    np.testing.assert_allclose(history["student_loss"], entropy, rtol=5e-3)
    np.testing.assert_allclose(history["distillation_loss"], divergence + 0.7 * error, rtol=5e-3)
    np.testing.assert_allclose(
        history["loss"], 0.8 * (divergence + 0.7 * error) + 0.2 * entropy, rtol=5e-3
    )


@pytest.mark.once("torch")
@pytest.mark.parametrize(("activation", "head"), HEADS)
def test_distill_of_models_with_a_new_last_layer_compares_its_logits_and_inputs(activation, head):
    model = fine_tuned(activation, head)
    student = retrofit(model, at=1, num_tokens=4)
    divergence, error, entropy = parts_of_the_loss(model, student, activation, head, 3.0)
    history = distill(
        student,
        model,
        IMAGES,
        LABELS[:, None],  # as in `keras.datasets`
        **ONE_STEP,
    ).history
    np.testing.assert_allclose(history["student_loss"], entropy, rtol=1e-2)
    np.testing.assert_allclose(history["distillation_loss"], divergence + 0.7 * error, rtol=1e-2)


def test_distill_of_a_sigmoid_head_has_the_same_loss_for_one_hot_and_integer_labels():
    losses = []
    for labels in (LABELS, np.eye(10)[LABELS]):
        model = fine_tuned("sigmoid", "mine")
        student = retrofit(model, at=1, num_tokens=4)
        history = distill(student, model, IMAGES, labels, epochs=1, batch_size=8, verbose=0)
        losses.append(history.history["loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.once("torch")
def test_distill_of_a_head_of_one_sigmoid_takes_labels_between_0_and_1():
    base = teacher(include_top=False, pooling="avg")
    model = keras.Model(base.input, keras.layers.Dense(1, "sigmoid")(base.output))
    student = retrofit(model, at=1, num_tokens=4)
    shares = np.linspace(0, 1, 24)
    losses = [
        distill(student, model, IMAGES, y, epochs=1, batch_size=8, learning_rate=1e-12, verbose=0)
        for y in (shares, shares[:, None])
    ]
    assert losses[0].history["loss"] == pytest.approx(losses[1].history["loss"], rel=1e-5)
    for wrong in (np.full((24, 1), 7), np.float64(0.5), []):
        with pytest.raises(ValueError, match="distill: `labels`"):
            distill(student, model, IMAGES, wrong)


@pytest.mark.once("torch")
def test_distill_of_a_nested_model_that_ends_in_softmax_raises():
    base = teacher(include_top=False, pooling="avg")
    top = keras.Sequential([keras.Input((32,)), keras.layers.Dense(10, "softmax")], name="top")
    model = keras.Model(base.input, top(base.output))
    with pytest.raises(ValueError, match="distill: `student`.* 'top'"):
        distill(retrofit(model, at=1, num_tokens=4), model, IMAGES, LABELS)


@pytest.mark.once("torch")
def test_distill_with_labels_for_a_student_without_top_raises():
    model = teacher(include_top=False, pooling="avg")
    with pytest.raises(ValueError, match=r"distill: `labels`.*labels of shape \(24,\)"):
        distill(retrofit(model, at=1, num_tokens=4), model, IMAGES, LABELS)


@pytest.mark.once("torch")
def test_distill_of_a_float16_student_scales_its_losses():
    class Kept(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.append(self.model.optimizer)

    model, found = teacher(dtype="mixed_float16"), []
    student = retrofit(model, at=1, num_tokens=4)
    distill(student, model, IMAGES, epochs=1, batch_size=8, callbacks=[Kept()], verbose=0)
    assert isinstance(found[0], keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("train_all", [False, True])
def test_distill_brings_the_student_near_the_teacher_and_keeps_frozen_blocks(train_all):
    model = teacher(class_token=True)
    student = retrofit(model, at=1, num_tokens=4)
    before = {weight.path: NUMPY(weight) for weight in student.weights}
    of_teacher = model.get_weights()
    distance = np.square(answers(model)[0] - answers(student)[0]).mean()
    distill(
        student,
        model,
        IMAGES,
        epochs=20,
        batch_size=8,
        learning_rate=3e-3,
        train_all=train_all,
        verbose=0,
    )
    assert np.square(answers(model)[0] - answers(student)[0]).mean() < 0.7 * distance
    for array, old in zip(model.get_weights(), of_teacher, strict=True):
        np.testing.assert_array_equal(array, old)
    for weight in student.weights:
        lower = weight.path.split("/")[0] in ("embedding", "positions", "class_token", "block_0")
        changed = not np.array_equal(NUMPY(weight), before[weight.path])
        unused = weight.path == "head/bias" and not train_all
        assert changed is (train_all or not lower) or unused, weight.path


@pytest.mark.once("torch")
def test_distill_cache_is_reused_for_the_same_inputs_only(tmp_path, monkeypatch):
    model, calls = teacher(), []
    original = keras.Model.predict_on_batch
    monkeypatch.setattr(
        keras.Model, "predict_on_batch", lambda self, x: calls.append(len(x)) or original(self, x)
    )
    losses = []
    for num_tokens, images, expected in (
        (4, IMAGES, [24, 24]),  # once the teacher, once the blocks before block 1
        (4, IMAGES, []),
        (2, IMAGES, []),
        (4, IMAGES[:12], [12, 12]),
    ):
        keras.utils.set_random_seed(0)
        student = retrofit(model, at=1, num_tokens=num_tokens)
        calls.clear()
        history = distill(
            student, model, images, epochs=1, batch_size=12, cache=tmp_path, verbose=0
        )
        assert calls == expected
        losses.append(history.history["loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for layer, expected in (("head", []), ("norm", [24])):  # the head is applied to cached features
        weights = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([array + 1 for array in weights])
        calls.clear()
        distill(student, model, IMAGES, epochs=1, cache=tmp_path, verbose=0)
        assert calls == expected
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}


@pytest.mark.once("torch")
def test_distill_interrupted_continues_to_the_weights_of_an_uninterrupted_run(tmp_path):
    def run(backup, callbacks=(), **changes):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = teacher(class_token=True)
        # A resumed student has other initial weights: only the backup can restore them.
        keras.utils.set_random_seed(len(list(tmp_path.iterdir())))
        student = retrofit(model, at=1, num_tokens=4)
        logger = keras.callbacks.CSVLogger(backup.with_suffix(".csv"))
        arguments = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "verbose": 0}
        arguments |= changes
        callbacks = [logger, *callbacks]
        distill(student, model, IMAGES, LABELS, backup=backup, callbacks=callbacks, **arguments)
        return student.get_weights(), backup.with_suffix(".csv").read_text()

    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    unbroken, whole = run(tmp_path / "unbroken.npz")
    (tmp_path / "unbroken.npz").unlink()
    (tmp_path / "unbroken.csv").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken.npz", [Breaks()])
    found, losses = run(tmp_path / "broken.npz")
    for array, wanted in zip(found, unbroken, strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert losses == whole and len(losses.splitlines()) == 4
    with pytest.raises(ValueError, match="learning_rate: 0.01, now 0.02$"):
        run(tmp_path / "broken.npz", learning_rate=2e-2)


@pytest.mark.once("torch")
@pytest.mark.parametrize("changed", ["images", "labels", "teacher"])
def test_distill_from_a_backup_of_other_images_labels_or_teacher_raises(tmp_path, changed):
    model, images, labels = teacher(), IMAGES[:8], LABELS[:8]
    student = retrofit(model, at=1, num_tokens=4)
    arguments = {"epochs": 1, "backup": tmp_path / "backup.npz", "verbose": 0}
    distill(student, model, images, labels, **arguments)
    if changed == "images":
        images = images[::-1]
    elif changed == "labels":
        labels = labels[::-1]
    else:
        model.get_layer("head").bias.assign(np.ones(10))
    with pytest.raises(ValueError, match=rf"Received: {changed}: '\w{{24}}', now '\w{{24}}'$"):
        distill(student, model, images, labels, **arguments)


@pytest.mark.once("torch")
@pytest.mark.parametrize("changed", ["teacher", "student"])
def test_distill_from_a_backup_of_a_model_with_another_epsilon_raises(tmp_path, changed):
    """The models differ in epsilon only: their weights and shapes are equal."""
    model, images = teacher(), IMAGES[:8]
    models = {"student": retrofit(model, at=1, num_tokens=4), "teacher": model}
    arguments = {"epochs": 1, "backup": tmp_path / "backup.npz", "verbose": 0}
    distill(**models, images=images, **arguments)
    other = teacher(layer_norm_epsilon=1e-3)
    models[changed] = retrofit(other, at=1, num_tokens=4) if changed == "student" else other
    with pytest.raises(ValueError, match=rf"Received: {changed}: '\w{{24}}', now '\w{{24}}'$"):
        distill(**models, images=images, **arguments)


@pytest.mark.parametrize("reducer", ["fixed_grid", "spatial_pooling"])
def test_distill_trains_students_with_fixed_grid_or_spatial_pooling(reducer):
    model = teacher()
    num_tokens = 4 if reducer == "fixed_grid" else None  # pooling has 2 x 2 tokens
    student = retrofit(model, at=1, num_tokens=num_tokens, reducer=reducer)
    assert student.get_layer("block_1").output.shape == (None, 4, 32)
    history = distill(student, model, IMAGES, epochs=4, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.once("torch")
def test_distill_of_tensors_and_one_callback_trains_as_with_an_array():
    images, losses, seen = IMAGES[:8].astype("float32"), [], []
    foreign = SimpleNamespace(numpy=lambda: images)  # such as a tensor of TensorFlow
    for given in (images, keras.ops.convert_to_tensor(images), foreign):
        model = teacher()
        keras.utils.set_random_seed(0)
        student = retrofit(model, at=1, num_tokens=4)
        callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: seen.append(epoch))
        options = {"epochs": 1, "batch_size": 4, "verbose": 0, "callbacks": callback}
        labels = keras.ops.convert_to_tensor(LABELS[:8])
        history = distill(student, model, given, labels, train_all=True, **options).history
        losses.append(history["loss"][0])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5) and seen == [0, 0, 0]


def test_distill_without_top_with_the_same_seed_repeats_its_losses():
    model = teacher(include_top=False, pooling="avg")
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        student = retrofit(model, at=1, num_tokens=4)
        history = distill(student, model, IMAGES, epochs=3, batch_size=8, verbose=0, seed=3)
        losses.append(history.history["loss"])
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "plain"}, "`student`"),
        ({"teacher": "other"}, "(None, 10) and (None, 7)"),
        ({"labels": LABELS[:5]}, "labels of shape (5,) for 24 examples"),
        ({"labels": LABELS + 1}, "from 1 to 10"),
        ({"labels": LABELS - 1}, "from -1 to 8"),
        ({"labels": LABELS / 2}, "of type float64"),
        ({"labels": np.eye(7)[LABELS % 7]}, "labels of shape (24, 7)"),
        ({"images": IMAGES[:0]}, "`images`"),
        ({"label_weight": 1.5}, "Received: label_weight=1.5"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"temperature": 0.0}, "Received: temperature=0.0"),
        ({"seed": -1}, "distill: `seed` must be"),
        ({"callbacks": "history"}, "distill: `callbacks`"),
    ],
)
def test_distill_with_wrong_arguments_raises(changes, message):
    model = teacher()
    models = {"plain": model, "other": create_model("vit_pico8", classes=7)}
    arguments = {"student": retrofit(model, at=1), "teacher": model, "images": IMAGES, **changes}
    for role in ("student", "teacher"):
        arguments[role] = models.get(changes.get(role), arguments[role])
    with pytest.raises(ValueError) as caught:
        distill(**arguments)
    assert message in str(caught.value)


def test_distill_of_models_without_top_and_pooling_lowers_the_loss():
    model = teacher(include_top=False)
    student = retrofit(model, at=1, num_tokens=4)
    history = distill(student, model, IMAGES, epochs=4, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.once("torch")
@pytest.mark.parametrize("train_all", [False, True])
def test_distill_from_a_backup_of_a_student_with_other_frozen_blocks_raises(tmp_path, train_all):
    model, images = teacher(), IMAGES[:8]
    arguments = {"epochs": 1, "backup": tmp_path / "backup.npz", "train_all": train_all}
    students = [retrofit(teacher(seed), at=1, num_tokens=4) for seed in (0, 1)]
    distill(students[0], model, images, verbose=0, **arguments)
    if train_all:  # the backup has these blocks too
        distill(students[1], model, images, verbose=0, **arguments)
        for array, same in zip(*(each.get_weights() for each in students), strict=True):
            np.testing.assert_array_equal(array, same)
        return
    with pytest.raises(ValueError, match=r"Received: frozen blocks: '\w{24}', now '\w{24}'$"):
        distill(students[1], model, images, verbose=0, **arguments)


@pytest.mark.once("torch")
def test_distill_of_a_teacher_wider_than_the_student_needs_feature_weight_0(monkeypatch):
    student, wide = retrofit(teacher(), at=1, num_tokens=4), teacher(hidden_dim=64)
    history = distill(student, wide, IMAGES, epochs=1, batch_size=8, feature_weight=0.0, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    monkeypatch.setattr(keras.Model, "predict_on_batch", None)  # no teacher runs
    with pytest.raises(ValueError, match=r"distill: .*feature_weight=0.*\(None, 32\) and .*, 64\)"):
        distill(student, wide, IMAGES)
