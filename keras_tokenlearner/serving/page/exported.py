import time

from keras_tokenlearner.serving.current_model import CurrentModel
from keras_tokenlearner.serving.page.answers import (
    About,
    Classified,
    classified,
    read_picture,
)
from keras_tokenlearner.serving.served_model import ServedModel
from keras_tokenlearner.serving.threads import DecodingThreads


def check_page(model: ServedModel) -> None:
    """Raise `ValueError` unless a model is a classifier of images that this package exported."""
    shape = model.metadata.get("input_shape", [])
    if len(shape) != 3 or "probabilities" not in model.outputs:
        raise ValueError(
            "serve: `page` needs a classifier of images that `keras-tokenlearner export` wrote. "
            f"Received: path={str(model.folder)!r}"
        )


class ExportedPage:
    """An exported model for the demo page. Pictures share batches with other requests.

    Args:
        current: The `CurrentModel` of the server, which holds the newest version of the model. Each
            version passes `check_page`.
        name: Name of the model.
        top_k: Integer, number of the most probable classes to return.
    """

    def __init__(self, current: CurrentModel, name: str, top_k: int = 5) -> None:
        self.current, self.name, self.top_k = current, name, top_k
        self.threads = DecodingThreads()

    @property
    def about(self) -> About:
        """Facts about the newest version of the model, such as its input shape.

        The demo page shows these facts.
        """
        model = self.current.now.model
        maps = model.outputs.get("token_maps")
        return {
            "model": self.name,
            "runtime": "SavedModel",
            "input_shape": model.metadata["input_shape"],
            "classes": model.outputs["probabilities"].shape[-1],
            "tokens": [] if maps is None else [maps.shape[-1]],
            "hint": ""
            if maps is not None
            else "The model was exported without its maps. Export "
            "it again with `keras-tokenlearner export --return-maps`.",
        }

    async def classify(self, content: bytes, tokens: int | None = None) -> Classified:
        """Return the predictions for a picture. For the arguments, see `PageModel.classify`.

        Ignore `tokens`, because an open page may know only an older version of the model.
        """
        start = time.perf_counter()
        current = self.current.now
        model, batcher = current.model, current.batcher
        shape, limit = model.metadata["input_shape"], model.max_pixels
        picture = await read_picture(self.threads, content, shape, model.resize, limit)
        decoded = time.perf_counter()
        row = {"pixels": picture.pixels}
        key, weight = model.batch_key("pixels", row), model.weight(row)
        answer = await batcher.answer(key, row, weight)
        end = time.perf_counter()
        maps = {"token_maps": answer["token_maps"]} if "token_maps" in answer else {}
        return classified(
            picture,
            answer["probabilities"],
            model.metadata.get("class_names"),
            maps,
            {"decoding": 1000 * (decoded - start), "model": 1000 * (end - decoded)},
            self.top_k,
        )
