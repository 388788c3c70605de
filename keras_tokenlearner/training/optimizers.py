import keras


def adamw(learning_rate, steps, warmup_steps=0, weight_decay=0.05, clip_norm=1.0):
    """Return Keras's AdamW as transformers are trained with it.

    Linear warm-up from zero, cosine decay to zero, global-norm clipping, and no weight decay on
    biases, norms and positions.

    Args:
        learning_rate: Float, the highest, at the end of the warm-up.
        steps: Integer, optimiser steps of the whole run.
        warmup_steps: Integer, how many of them warm up.
        weight_decay: Float.
        clip_norm: Float, the largest global norm of the gradients.

    Example:

    >>> optimizer = adamw(1e-3, steps=100, warmup_steps=10)
    >>> optimizer.build([keras.Variable(np.zeros(3))])
    >>> float(optimizer.learning_rate)
    0.0
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=steps - warmup_steps,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=weight_decay, global_clipnorm=clip_norm
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "table"])
    return optimizer
