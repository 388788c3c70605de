"""Start of every test: fixed seeds, float32, images with the channels last."""

import itertools
import os

# Programs of the tests run once: compile them fast rather than well.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import keras  # noqa: E402
import pytest  # noqa: E402

_COUNT = itertools.count(1)


@pytest.fixture(autouse=True)
def clean_state():
    """Seed every generator, and restore the global settings of Keras after a test."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    policy, image_format = keras.config.dtype_policy(), keras.config.image_data_format()
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(image_format)
    if keras.backend.backend() == "jax" and next(_COUNT) % 150 == 0:
        import jax

        jax.clear_caches()  # compiled programs of all tests would fill gigabytes
