"""Builds models without allocating their weights, to learn the shapes of the weights."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import keras

from keras_tokenlearner._precision import dtype_policy

Built = TypeVar("Built")


def without_weights(build: Callable[[], Built]) -> Built:
    """Call a function that builds models, without allocating their weights.

    The shapes of the weights are known afterwards, but not their values. Each thread keeps a list
    of the weights that Keras initialises later. `build` therefore runs in a separate thread, whose
    list is never used. Keras draws the seeds of initializers from Python's random generator. The
    state of the generator is restored, so the initial values of later models do not change.

    Args:
        build: Function without arguments. It returns a model, or values computed from models.

    Example:

    >>> inputs = keras.Input((10**6,))
    >>> huge = without_weights(lambda: keras.Model(inputs, keras.layers.Dense(10**6)(inputs)))
    >>> huge.count_params()
    1000001000000
    """
    policy = keras.config.dtype_policy()

    def run() -> Built:
        with dtype_policy(policy), keras.StatelessScope(initialize_variables=False):
            return build()

    state = random.getstate()
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
    finally:
        random.setstate(state)
