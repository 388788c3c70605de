"""Test the installed package: its files exist, and included weights reach their accuracy."""

from importlib import resources
from pathlib import Path

import keras
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import paper_costs
from keras_tokenlearner.data import load_fashion_mnist

package = Path(kt.__file__).parent
repository = Path(__file__).parent.parent
assert repository / "keras_tokenlearner" != package, (
    f"the package must not come from the repository; install its wheel first. Received: {package}"
)
assert resources.files("keras_tokenlearner").joinpath("py.typed").is_file()


def data_files(folder):
    """Return the files of a package that are not Python's."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in files if path.suffix not in (".py", ".pyc")}


missing = data_files(repository / "keras_tokenlearner") - data_files(package)
assert not missing, missing
assert len(list(package.rglob("LICENSE*"))) == 1

model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
_, (images, labels) = load_fashion_mnist()
right = np.mean(model.predict(images[:500], batch_size=100, verbose=0).argmax(-1) == labels[:500])
assert right > 0.9, right
assert next(paper_costs(("1",)))["gflops"] == "3.44"
print(
    f"keras_tokenlearner {kt.__version__} from {package} on {keras.backend.backend()}: {right:.1%}"
)
