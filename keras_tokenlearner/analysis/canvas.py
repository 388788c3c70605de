from keras_tokenlearner.extras import require

# Figures bring their own dark ground, so that they read alike on light and on dark pages.
GROUND, INK, FAINT = "#101218", "#f2f2f2", "#5a6070"


def new_figure(width, height):
    """Return an empty `matplotlib.figure.Figure` of a size in inches.

    Raises:
        ImportError: If matplotlib, the extra `plot`, is not installed.
    """
    figures = require("matplotlib.figure", "plot")
    return figures.Figure(figsize=(width, height), facecolor=GROUND, layout="constrained")


def save(figure, path):
    """Save a figure where that is asked for, and return it."""
    if path is not None:
        figure.savefig(path, dpi=150, facecolor=GROUND)
    return figure
