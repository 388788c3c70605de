"""Start of every test: fixed seeds, float32, images with the channels last."""

import atexit
import gc
import itertools
import os
import re
import shutil
import tempfile

# Tests run most compiled programs once, so compile quickly with little optimization.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)
os.environ.setdefault("XLA_FLAGS", QUICK)

# Processes of one run share the programs that JAX compiles; tests build the same layers often.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import keras  # noqa: E402
import pytest  # noqa: E402

from tests import quick_exports, quick_traces, quick_weights, skips  # noqa: E402

if os.environ["XLA_FLAGS"] == QUICK:
    quick_weights.draw_by_numpy()
    quick_traces.trace_once()
    quick_exports.share_processes()

_COUNT = itertools.count(1)
_ONCE = re.compile(r"\bmark\.once\(\"(\w+)\"\)")
_ONCE_IN_FILE = re.compile(rf"^pytestmark = \[?\s*pytest\.{_ONCE.pattern}", re.MULTILINE)


@pytest.fixture(autouse=True)
def clean_state():
    """Seed every generator, and restore the global settings of Keras after a test."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    policy, image_format = keras.config.dtype_policy(), keras.config.image_data_format()
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(image_format)
    if next(_COUNT) % 100 == 0:
        # TensorFlow keeps every graph, and Keras collects garbage at each layer that it quantizes.
        # The collector would visit millions of objects, for seconds.
        gc.collect()
        gc.freeze()
        if keras.backend.backend() == "jax":
            import jax

            jax.clear_caches()  # compiled programs of all tests would fill gigabytes


def pytest_configure(config):
    config.pluginmanager.register(skips)


def pytest_addoption(parser):
    parser.addoption(
        "--backends",
        default="",
        help="all backends of this run; tests marked `once` run on only one of them",
    )


def pytest_ignore_collect(collection_path, config):
    """Leave out a file whose tests all run on another backend, without the time to import it."""
    backends = config.getoption("backends").split()
    if not backends or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    if not _ONCE_IN_FILE.search(text) or "mark.every_backend" in text:
        return None
    if keras.backend.backend() in {skips.chosen(one, backends) for one in _ONCE.findall(text)}:
        return None
    skips.deselect_file(config)
    return True


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(config, items):
    """Give tests that share fixtures of a file, or the outputs of a case, to one process."""
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        group = f"{item.path}:{case.name}" if hasattr(case, "name") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    backends = config.getoption("backends").split()
    if backends:
        others = [item for item in items if not skips.is_for_this(item, backends)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if skips.is_for_this(item, backends)]
