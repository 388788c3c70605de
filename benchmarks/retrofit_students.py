"""Students of one fine-tuned teacher, for `benchmarks.retrofit_ablation`."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from benchmarks.token_merging import merging_of_cost
from benchmarks.two_stages import two_stages
from keras_tokenlearner import Distiller, retrofit, with_tokens
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.data import inception_crop
from keras_tokenlearner.data.resizing import fit_image
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.training.distillation.answers import (
    FEATURES,
    answers,
    with_kept_features,
)
from keras_tokenlearner.training.distillation.checks import ends_in_sigmoid


@dataclass(frozen=True)
class Cell:
    """A student and its training. The CSV file has one row for each of the student's budgets.

    Attributes:
        part: `"main"` or the name of an ablation.
        reducer: `"token_learner"`, `"spatial_pooling"` or `"token_merging"`.
        at: Blocks before the reducer. Token merging has the cost of a TokenLearner with this `at`.
        num_tokens: Tokens after the reducer; 0 for 2 x 2 pooling, whose grid decides the number.
        second_at: Blocks before a second TokenLearner; 0 for none.
        second_tokens: Tokens after the second TokenLearner.
        start: `"grid"` or `"random"`, the start of the TokenLearner's maps.
        proportional: Whether attention weighs a token by its number of patches.
        reconstruction: Weight of the reconstructed tokens in the loss.
        budgets: Numbers of tokens, one drawn for each step. Empty for a fixed number.
        mixup: Whether half of each batch is mixed with other images, behind the frozen blocks.
            The teacher then runs on the mixed tokens, and the loss has no labels.
        seed: Decides the weights, the order of the images and the budgets.
    """

    part: str
    reducer: str
    at: int
    num_tokens: int
    second_at: int = 0
    second_tokens: int = 0
    start: str = "grid"
    proportional: bool = True
    reconstruction: float = 0.0
    budgets: tuple[int, ...] = ()
    mixup: bool = False
    seed: int = 0

    @property
    def key(self) -> dict[str, str]:
        """The columns that identify a row of the CSV file, as strings."""
        fields = dataclasses.asdict(self) | {"budgets": "+".join(map(str, self.budgets))}
        return {name: str(value) for name, value in fields.items()}


def cells(places: tuple[tuple[int, int], ...], seeds: int, mixup: bool = False) -> list[Cell]:
    """Return all cells: the main table for each position and number of tokens, then the ablation.

    Args:
        places: Pairs of a position and a number of tokens. The ablation uses the first pair.
        seeds: Number of seeds of each cell.
        mixup: The field of all cells.
    """
    main, ablation = [], []
    for at, tokens in places:
        for seed in range(seeds):
            main += [
                Cell("main", "token_learner", at, tokens, seed=seed),
                Cell("main", "spatial_pooling", at, 0, start="random", seed=seed),
            ]
    for at, tokens in places:
        for seed in range(seeds):
            main += [
                Cell(
                    "main",
                    "token_merging",
                    at,
                    tokens,
                    proportional=False,
                    start="random",
                    seed=seed,
                ),
                Cell("main", "token_learner", at, tokens, start="random", seed=seed),
            ]
    at, tokens = places[0]
    # With 4 * tokens patches, two stages with these blocks have the tokens of one stage in total.
    second = {"second_at": at + 2, "second_tokens": tokens}
    budgets = tuple(m for m in (4, 8, 16, 32) if m <= 2 * tokens)
    for seed in range(seeds):
        learner = Cell("ablation", "token_learner", at, tokens, seed=seed)
        pooling = Cell("ablation", "spatial_pooling", at, 0, start="random", seed=seed)
        ablation += [
            dataclasses.replace(learner, proportional=False),
            dataclasses.replace(pooling, proportional=False),
            dataclasses.replace(learner, num_tokens=max(budgets), budgets=budgets),
            *(dataclasses.replace(learner, num_tokens=m) for m in budgets if m != tokens),
            dataclasses.replace(learner, reconstruction=1.0),
        ]
        if 1 < at < 10:
            ablation.append(
                dataclasses.replace(learner, at=at - 1, num_tokens=2 * tokens, **second)
            )
    # Pairs at the same block share the student with pooling.
    found = dict.fromkeys(main + ablation)
    return [dataclasses.replace(cell, mixup=mixup) for cell in found]


def student_of(cell: Cell, teacher: keras.Model) -> keras.Model:
    """Return the student of a cell before any training."""
    keras.utils.set_random_seed(cell.seed)
    if cell.second_at:
        return two_stages(teacher, (cell.at, cell.num_tokens), (cell.second_at, cell.second_tokens))
    if cell.reducer == "token_merging":
        twin = retrofit(teacher, cell.at, cell.num_tokens)
        return merging_of_cost(teacher, costs(twin).macs, start=cell.at)
    return retrofit(
        teacher,
        cell.at,
        cell.num_tokens or None,
        reducer=cell.reducer,
        token_start=cell.start,
        proportional_attention=cell.proportional,
    )


def needs_teacher(cell: Cell) -> bool:
    """Return whether a student needs more outputs of the teacher than the stored features."""
    return bool(cell.reconstruction or cell.budgets or cell.mixup)


def train_student(
    cell: Cell,
    student: keras.Model,
    teacher: keras.Model,
    batches: keras.utils.PyDataset,
    epochs: int,
    learning_rate: float,
) -> None:
    """Train the blocks of a student from `cell.at` on, with the same steps for all cells."""
    behind = f"block_{cell.at - 1}"
    weight = 0.0 if cell.mixup else 0.5
    arguments = {"temperature": 2.0, "feature_weight": 1.0, "label_weight": weight}
    if needs_teacher(cell):
        distiller = Distiller(
            student,
            teacher,
            **arguments,
            reconstruction_weight=cell.reconstruction,
            budgets=cell.budgets or None,
            seed=cell.seed,
            behind=behind,
        )
    else:
        models = with_kept_features(answers(student, 0, [], behind), teacher)
        distiller = Distiller.of_answers(*models, **arguments, sigmoid=ends_in_sigmoid(student))
    steps = epochs * len(batches)
    distiller.compile(faster_reducer(learning_rate, steps))
    distiller.fit(batches, epochs=epochs, shuffle=False, verbose=2)


def keep_features(teacher: keras.Model, kept: np.ndarray, frozen: int, path: Path) -> np.ndarray:
    """Return the inputs of the teacher's head, (n, views, C), from stored tokens or a file."""
    if path.is_file():
        return np.load(path, allow_pickle=False)
    found = answers(teacher, 0, [], f"block_{frozen - 1}")
    upper = keras.Model(found.input, found.output[FEATURES])
    features = np.empty((*kept.shape[:2], upper.output_shape[-1]), "float32")
    for start in range(0, len(kept), 100):
        rows = slice(start, start + 100)
        for view in range(kept.shape[1]):
            features[rows, view] = upper.predict_on_batch(float32(kept[rows, view]))
    np.save(path, features)
    return features


def models_of(cell: Cell, student: keras.Model) -> dict[int, keras.Model]:
    """Return one model for each number of tokens of a trained student."""
    if not cell.budgets:
        pooled = math.prod(Structure("models_of", student).grid) // 4
        return {cell.second_tokens or cell.num_tokens or pooled: student}
    return {m: with_tokens(student, m) for m in cell.budgets}


class _FasterReducer(keras.optimizers.AdamW):
    """AdamW with ten times the learning rate for new weights: TokenLearner, reconstruction."""

    def update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        learning_rate: keras.KerasTensor,
    ) -> None:
        new = any(name in variable.path for name in ("token_learner", "reconstruction"))
        super().update_step(gradient, variable, learning_rate * (10.0 if new else 1.0))


def faster_reducer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Return AdamW with a cosine schedule and ten times the learning rate for new weights."""
    warmup = steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = _FasterReducer(schedule, weight_decay=0.05, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "table"])
    return optimizer


class ViewBatches(keras.utils.PyDataset):
    """Batches of stored tokens of one random view of each image, and labels.

    Args:
        kept: Array of shape (n, views, tokens, C) of bfloat16 numbers as `uint16`.
        labels: Integer array of shape (n,).
        batch_size: Integer.
        seed: Integer, decides the order, the views and the mixed images of each epoch.
        features: Array of shape (n, views, C), the teacher's features, which follow the tokens in
            a batch. `None` for batches without features.
        mixup: Whether half of each batch is mixed with other images, in uniform random shares.
    """

    def __init__(
        self,
        kept: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        features: np.ndarray | None = None,
        mixup: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.mixup = features, mixup
        self.kept, self.labels, self.batch_size, self.seed = kept, labels, batch_size, seed
        self.epoch = 0
        self._draw()

    def _draw(self) -> None:
        random = np.random.default_rng((self.seed, self.epoch))
        self.order = random.permutation(len(self.labels))
        self.views = random.integers(0, self.kept.shape[1], len(self.labels))

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        views = self.views[rows]
        tokens = float32(self.kept[rows, views])
        if self.mixup:
            return self._mixed(tokens, index), self.labels[rows]
        inputs = tokens if self.features is None else (tokens, self.features[rows, views])
        return inputs, self.labels[rows]

    def _mixed(self, tokens: np.ndarray, index: int) -> np.ndarray:
        random = np.random.default_rng((self.seed, self.epoch, index))
        shares = random.uniform(size=(len(tokens), 1, 1)).astype("float32")
        shares[::2] = 1.0
        return shares * tokens + (1.0 - shares) * np.roll(tokens, 1, axis=0)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._draw()


def float32(kept: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, stored as `uint16`, as float32."""
    return (np.asarray(kept).astype(np.uint32) << 16).view(np.float32)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Return float32 numbers rounded to bfloat16, as `uint16`."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class KeptOutputs:
    """Stored outputs of a model's first blocks, for several views of each image.

    Args:
        model: A plain ViT.
        images: Dictionary of arrays.
        views: Dictionary of the number of views, with the same keys.
        folder: Path of the files.
    """

    def __init__(
        self,
        model: keras.Model,
        images: dict[str, np.ndarray],
        views: dict[str, int],
        folder: Path,
    ) -> None:
        self.model, self.images, self.views, self.folder = model, images, views, folder

    def of(self, name: str, blocks: int) -> np.ndarray:
        """Return the outputs of block `blocks - 1` for the images `images[name]`."""
        before = keras.Model(self.model.input, self.model.get_layer(f"block_{blocks - 1}").output)
        images, views = self.images[name], self.views[name]
        path = self.folder / f"{name}_{len(images)}x{views}_{blocks}.npy"
        return keep_views(before, images, path, views)


def view(image: np.ndarray, row: int, number: int) -> np.ndarray:
    """Return view `number` of image `row`: the image, its mirror image, or a random crop.

    A crop has at least half of the image's area and is resized to the image's size. Half of the
    crops are mirrored.
    """
    if number < 2:
        return image[:, ::-1] if number else image
    random = np.random.default_rng((row, number))
    box = inception_crop(*image.shape[:2], random, area=(0.5, 1.0))
    found = fit_image(image, image.shape, box)
    return found[:, ::-1] if random.integers(2) else found


def keep_views(
    before: keras.Model, images: np.ndarray, path: Path, views: int = 2, batch_size: int = 100
) -> np.ndarray:
    """Return the outputs of a model for several views of each image, from a file.

    The call computes only the outputs that the file lacks, so it continues after an interruption.

    Returns:
        Array of shape (n, views, tokens, C), mapped from the file.
    """
    shape = (len(images), views, *before.output_shape[1:])
    done = path.with_suffix(".done")
    if not path.is_file():
        np.lib.format.open_memmap(path, "w+", np.uint16, shape).flush()
        done.write_text("0")
    kept = np.lib.format.open_memmap(path, "r+")
    if kept.shape != shape:
        raise ValueError(
            f"keep_views: the array in {path} must have shape {shape}; delete the file. "
            f"Received: shape {kept.shape}"
        )
    for start in range(int(done.read_text()), len(images), batch_size):
        batch = images[start : start + batch_size]
        for number in range(views):
            rows = enumerate(batch, start)
            pixels = np.stack([view(image, row, number) for row, image in rows])
            found = before.predict_on_batch(pixels.astype("float32"))
            kept[start : start + len(batch), number] = bfloat16(found)
        if start // batch_size % 20 == 0 or start + batch_size >= len(images):
            kept.flush()
            done.write_text(str(min(start + batch_size, len(images))))
            print(f"{path.name}: {start + len(batch)} of {len(images)} images", flush=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)
