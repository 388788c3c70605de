"""Quick traces for tests on TensorFlow. Traces take two fifths of the time of these tests.

Keras makes the variables of the optimizer and of the metrics in the first training step, so
TensorFlow traces this step twice. Tests make these variables before the first step. TensorFlow
optimizes each graph before its first run. Tests run most graphs once, so they turn this off.
"""

import functools
import types
from collections.abc import Callable

import keras


def trace_once() -> None:
    """On TensorFlow, let Keras trace a training step once. Leave out stacks and optimization."""
    if keras.backend.backend() != "tensorflow":
        return
    from tensorflow.python.util import tf_stack

    leave_out_optimization()
    stack = tf_stack.extract_stack()
    tf_stack.extract_stack = lambda *_, **__: stack
    keras.Model.make_train_function = _building(keras.Model.make_train_function)


def leave_out_optimization() -> None:
    """On TensorFlow, run graphs without Grappler, whose work takes longer than most test graphs."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def _building(make_train_function: Callable) -> Callable:
    import tensorflow as tf

    @functools.wraps(make_train_function)
    def make(self, force=False):
        if self.train_function is None or force:
            make_train_function(self, force)
            self.train_function = build_first(self, self.train_function)

    def build_first(model, train):
        built = model.run_eagerly

        @functools.wraps(train)
        def train_function(iterator):
            nonlocal built
            if not built and isinstance(iterator, tf.data.Iterator):
                model._symbolic_build(data_batch=iterator.element_spec)
            elif not built and isinstance(iterator, types.GeneratorType):  # of `train_on_batch`
                batch = next(iterator)
                model._symbolic_build(data_batch=batch)
                iterator = iter([batch])
            built = True
            return train(iterator)

        return train_function

    return make
