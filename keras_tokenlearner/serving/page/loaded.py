import time
from collections.abc import Sequence
from typing import TypeAlias

import keras
import numpy as np

from keras_tokenlearner._checks import check_int, check_ints
from keras_tokenlearner.analysis.maps import model_with_learners, with_all_token_maps
from keras_tokenlearner.applications.load import check_classifier
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.models import with_tokens
from keras_tokenlearner.models.budgets import reduction_problem
from keras_tokenlearner.models.preprocessing import check_takes_pixels
from keras_tokenlearner.models.retrofit import weights_problem
from keras_tokenlearner.serving.batching import Batcher
from keras_tokenlearner.serving.classifier import classifier_activation_of, probabilities
from keras_tokenlearner.serving.metadata import own_class_names
from keras_tokenlearner.serving.page.answers import (
    About,
    Classified,
    Milliseconds,
    chosen_tokens,
    classified,
    read_picture,
)
from keras_tokenlearner.serving.threads import DecodingThreads

# Probabilities, maps by layer, and the milliseconds of the model.
Outputs: TypeAlias = tuple[np.ndarray, dict[str, np.ndarray], float]


class LoadedPage:
    """A Keras model for the demo page, with a copy for each number of tokens.

    Pictures are decoded in threads. One other thread runs the models, one picture at a time. The
    measured milliseconds are therefore for a batch of one.

    Args:
        model: A `keras.Model`, a classifier of images.
        tokens: Numbers of tokens that the page offers. If `with_tokens` accepts the model, the
            default is `num_tokens` and all smaller powers of two. Other models offer only their
            `num_tokens`. A model without maps offers no number.
        top_k: Integer, number of the most probable classes to return.
        classifier_activation: For a model that ends in logits: `"softmax"` or `"sigmoid"`.

    Raises:
        ValueError: If the model is not a classifier of images, or ends in logits and no activation
            is passed. Also if the model has fewer tokens than `tokens` asks for.
    """

    def __init__(
        self,
        model: keras.Model,
        tokens: Sequence[int] | None = None,
        top_k: int = 5,
        classifier_activation: str | None = None,
    ) -> None:
        self.top_k = check_int("demo", "top_k", top_k)
        model = check_classifier(model, model.name, "demo")
        check_takes_pixels("demo", model)
        activation, is_applied = classifier_activation_of("demo", model, classifier_activation)
        if activation == "linear":
            raise ValueError(
                "demo: `model` must be a classifier of images. "
                f"Received: model {model.name!r}, which returns features"
            )
        self.activation = activation if is_applied else None
        self.input_shape = model.input_shape[1:]
        self.class_names = own_class_names(model)
        self.preprocessing = preprocessing_of(model)
        hint = "" if tokens else _hint(model)  # without maps, `with_tokens` raises for `tokens`
        budgets = [0] if hint else _budgets(model, tokens)
        self.models = {
            count: with_all_token_maps(_with_budget(model, count)) if count else model
            for count in budgets
        }
        self.about: About = {
            "model": model.name,
            "runtime": keras.backend.backend(),
            "input_shape": list(self.input_shape),
            "classes": model.output_shape[-1],
            "tokens": [count for count in budgets if count],
            "hint": hint,
        }
        self.threads = DecodingThreads()
        self.batcher: Batcher[int, np.ndarray, Outputs] = Batcher(self._answer, max_rows=1)
        for count in budgets:  # compile before the first picture
            self._answer(count, [np.zeros(self.input_shape, "float32")])

    async def classify(self, content: bytes, tokens: int | None = None) -> Classified:
        """Return the predictions for a picture. For the arguments, see `PageModel.classify`."""
        count = chosen_tokens(self.about, tokens)
        start = time.perf_counter()
        picture = await read_picture(self.threads, content, self.input_shape, self.preprocessing)
        decoding = 1000 * (time.perf_counter() - start)
        scores, maps, milliseconds = await self.batcher.answer(count, picture.pixels)
        times: Milliseconds = {"decoding": decoding, "model": milliseconds}
        return classified(picture, scores, self.class_names, maps, times, self.top_k)

    def _answer(self, count: int, rows: list[np.ndarray]) -> list[Outputs]:
        start = time.perf_counter()
        found = self.models[count].predict_on_batch(np.stack(rows))
        milliseconds = 1000 * (time.perf_counter() - start)
        outputs, all_maps = (found["outputs"], found["token_maps"]) if count else (found, {})
        scores = np.asarray(outputs, "float32")
        if self.activation is not None:
            scores = probabilities(scores, self.activation)
        return [
            (scores[i], {name: maps[i] for name, maps in all_maps.items()}, milliseconds)
            for i in range(len(rows))
        ]


def _hint(model: keras.Model) -> str:
    """Return why the page of a model has no attention maps, or an empty text."""
    found = model_with_learners(model)
    if found is None:
        return "This model has no TokenLearner, so it has no maps."
    if found is not model:
        return (
            f"The page has no maps, because the TokenLearner is in a model inside {model.name}. "
            f"Save the model {found.name} alone to see its maps."
        )
    if weights_problem(model):
        return "The page has no maps, because the model has quantized weights or LoRA weights."
    return ""


def _budgets(model: keras.Model, tokens: Sequence[int] | None) -> list[int]:
    """Return the numbers of tokens that the page offers, sorted."""
    if tokens:
        return sorted(set(check_ints("demo", "tokens", tokens)))
    counts = [learner.num_tokens for learner in _learners(model)]
    if reduction_problem(model):
        return [max(counts)]
    # `with_tokens` reduces all TokenLearners to one number.
    fewest = min(counts)
    return sorted({2**power for power in range(fewest.bit_length())} | {fewest, max(counts)})


def _with_budget(model: keras.Model, count: int) -> keras.Model:
    """Return `with_tokens(model, count)`, or the model itself if it has `count` tokens."""
    most = max((learner.num_tokens for learner in _learners(model)), default=0)
    return model if most == count else with_tokens(model, count)


def _learners(model: keras.Model) -> list[TokenLearner]:
    return [layer for layer in model.layers if isinstance(layer, TokenLearner)]
