import asyncio
import time
from typing import TypeAlias

import numpy as np

from keras_tokenlearner.serving.batching import Batcher
from keras_tokenlearner.serving.page.answers import (
    About,
    Classified,
    Picture,
    chosen_tokens,
    classified,
)
from keras_tokenlearner.serving.served_model import Key, ServedModel

Rows: TypeAlias = dict[str, np.ndarray]


class ExportedPage:
    """An exported model behind the page, which shares the batches of the other requests.

    Args:
        model: A `ServedModel`.
        batcher: The `Batcher` of its server.
        name: Name of the model.
        top_k: Integer, number of the most probable classes.

    Raises:
        ValueError: If the model is no classifier of images that this package exported.
    """

    def __init__(
        self, model: ServedModel, batcher: Batcher[Key, Rows, Rows], name: str, top_k: int = 5
    ) -> None:
        shape = model.metadata.get("input_shape", [])
        if len(shape) != 3 or "probabilities" not in model.outputs:
            raise ValueError(
                "serve: the page needs a classifier of images that `keras-tokenlearner export` "
                f"wrote. Received: path={str(model.folder)!r}"
            )
        self.model, self.batcher, self.top_k = model, batcher, top_k
        self.input_shape = shape
        maps = model.outputs.get("token_maps")
        self.about: About = {
            "model": name,
            "runtime": "SavedModel",
            "input_shape": shape,
            "classes": model.outputs["probabilities"].shape[-1],
            "tokens": [] if maps is None else [maps.shape[-1]],
            "hint": ""
            if maps is not None
            else "The model was exported without its maps. Add "
            "them with `keras-tokenlearner export --maps`.",
        }

    async def classify(self, content: bytes, tokens: int | None = None) -> Classified:
        """Return the answer to a picture, as `PageModel` describes it."""
        chosen_tokens(self.about, tokens)
        start = time.perf_counter()
        resize, limit = self.model.resize, self.model.max_pixels
        picture = await asyncio.to_thread(Picture, content, self.input_shape, resize, limit)
        decoded = time.perf_counter()
        row = {"pixels": picture.pixels}
        key, weight = self.model.batch_key("pixels", row), self.model.weight(row)
        answer = await self.batcher.answer(key, row, weight)
        end = time.perf_counter()
        maps = {"token_maps": answer["token_maps"]} if "token_maps" in answer else {}
        return classified(
            picture,
            answer["probabilities"],
            self.model.metadata.get("class_names"),
            maps,
            {"decoding": 1000 * (decoded - start), "model": 1000 * (end - decoded)},
            self.top_k,
        )
