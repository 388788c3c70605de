"""A recipe that distills a ViT into a ViT with learned tokens, on any number of devices."""

from dataclasses import dataclass

import keras

from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.applications import create_model
from keras_tokenlearner.applications.load import load_model
from keras_tokenlearner.data import Images
from keras_tokenlearner.models import retrofit
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.training.distillation import needs
from keras_tokenlearner.training.distillation.distiller import Distiller
from keras_tokenlearner.training.optimizers import adamw
from keras_tokenlearner.training.recipes.fine_tuning import ImageNet384Recipe


@dataclass(frozen=True)
class DistillationRecipe(ImageNet384Recipe):
    """Distillation of a ViT into a faster ViT with learned tokens, on augmented images.

    Command: `keras-tokenlearner train distill --set model=NAME --set weights=FILE --distribute
    auto`. The head of the teacher must have the classes of the data, in the same order. Before
    training, the recipe prints an estimate of time and memory on ImageNet for several machines. We
    have not run this recipe on ImageNet.

    FILE may be the result of another recipe, such as `trained/vit_s16.keras` of `imagenet_384`.
    Pass the `size` and `precision` of that recipe too. The results have the name of the student.
    This name ends in `_16at6` for 16 tokens after 6 blocks.

    Attributes:
        model: Name of the teacher in the catalogue.
        weights: Required. Weights of the teacher, with its head, for `create_model`. Or the path of
            a `.keras` file with the teacher.
        at: Blocks before the TokenLearner.
        num_tokens: Number of learned tokens.
        budgets: Numbers of tokens, joined by `+` as in `4+8+16`. Each step trains with one of these
            numbers. Empty for all tokens in every step.
        temperature: Logits are divided by this number before the softmax.
        feature_weight: Weight of the features in the loss; the weight of the logits is 1.
        label_weight: Weight of the labels in the loss, in [0, 1].
        reconstruction_weight: Weight of the reconstructed teacher tokens in the loss; 0 for none.
        warmup_steps: Steps of linear warm-up, at most a tenth of all steps.
        weight_decay: Weight decay of AdamW.
        gradient_accumulation_steps: Must be 1: batches are not divided into parts.
        label_smoothing: Must be 0: labels are not smoothed.
        ema_momentum: Must be 0: weights are not averaged.
    """

    model: str = "vit_s16"
    at: int = 6
    num_tokens: int = 16
    budgets: str = ""
    temperature: float = 2.0
    feature_weight: float = 1.0
    label_weight: float = 0.5
    reconstruction_weight: float = 0.0
    weight_decay: float = 0.05
    size: int = 224
    epochs: int = 30
    batch_size: int = 1024
    learning_rate: float = 1e-4
    warmup_steps: int = 1000
    precision: str = "mixed_bfloat16"

    def __post_init__(self) -> None:
        super().__post_init__()
        unused = {"gradient_accumulation_steps": 1, "ema_momentum": 0.0, "label_smoothing": 0.0}
        for name, value in unused.items():
            given = getattr(self, name)
            if given != value:
                raise ValueError(
                    f"{type(self).__name__}: `{name}` must be {value}: distillation does not "
                    "divide batches, average weights or smooth labels. To save memory, use a "
                    f"smaller `batch_size` or more devices. Received: {name}={given!r}"
                )
        self._budgets()  # raises an error before the data and the models take time

    @property
    def output_name(self) -> str:
        """Name of the student. The name of the teacher would replace the teacher's files."""
        return f"{self.model}_{self.num_tokens}at{self.at}"

    def open(self) -> tuple[Images, Images]:
        """Return the training images and the test images."""
        self._check_weights()  # before the data take time
        return super().open()

    def _build(self, classes: int) -> keras.Model:
        teacher = self._teacher(classes)
        return retrofit(teacher, self.at, self.num_tokens, name=self.output_name)

    def _check_weights(self) -> None:
        if not self.weights:
            raise ValueError(
                f"{type(self).__name__}: `weights` must be the weights of the teacher, because a "
                f"random teacher has nothing to teach. Received: weights={self.weights!r}"
            )

    def _teacher(self, classes: int) -> keras.Model:
        self._check_weights()
        if str(self.weights).endswith(".keras"):
            teacher = self._loaded()
        else:
            # Given `classes`, `create_model` would replace a head of other classes by a random
            # head.
            teacher = create_model(
                self.model, weights=self.weights, input_shape=(self.size, self.size, 3)
            )
        found = teacher.output_shape[-1]
        if found != classes:
            raise ValueError(
                f"{type(self).__name__}: `weights` must have a head of the {classes} classes of "
                "`data`. First fine-tune the teacher, for example with the recipe imagenet_384. "
                f"Received: weights={self.weights!r} with {found} classes"
            )
        return teacher

    def _loaded(self) -> keras.Model:
        """Return the teacher of a `.keras` file. The file decides its size and precision."""
        teacher = load_model(self.weights, owner=type(self).__name__)
        policy = Structure(type(self).__name__, teacher).block.dtype_policy.name
        shape = (None, self.size, self.size, 3)
        if teacher.input_shape != shape or policy != self.precision:
            raise ValueError(
                f"{type(self).__name__}: `size` and `precision` must be as in the file of the "
                f"teacher, which has inputs {teacher.input_shape} and precision {policy}. "
                f"Received: size={self.size}, precision={self.precision!r}"
            )
        return teacher

    def learner(self, student: keras.Model) -> Distiller:
        """Return the `Distiller` that `train` fits instead of the student."""
        with dtype_policy(self.precision):
            teacher = self._teacher(student.output_shape[-1])
        for each in needs(student, teacher, self.epochs, self.batch_size):
            print(f"ImageNet on {each}")
        return Distiller(
            student,
            teacher,
            self.temperature,
            self.feature_weight,
            self.label_weight,
            self.reconstruction_weight,
            budgets=self._budgets(),
            seed=self.seed,
        )

    def _budgets(self) -> list[int] | None:
        if not self.budgets:
            return None
        try:
            return [int(budget) for budget in self.budgets.split("+")]
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{type(self).__name__}: `budgets` must be integers joined by '+', as in "
                f"'4+8+16'. Received: budgets={self.budgets!r}"
            ) from error

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return AdamW with warm-up and cosine decay over the whole run."""
        steps = self.epochs * steps_per_epoch
        warmup = min(self.warmup_steps, steps // 10)
        return adamw(
            self.learning_rate,
            steps,
            warmup,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
        )
