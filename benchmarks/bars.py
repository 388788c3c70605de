"""Draws measured ratios as bars, with a line for the goal."""

from keras_tokenlearner._extras import require


def draw_bars(rows, path, group, series, value, goal):
    """Draw a bar for each row. Each group of bars has one bar per series.

    Args:
        rows: List of dictionaries of strings.
        path: Path of the picture.
        group: Columns whose joined strings are the name of a group.
        series: Columns whose joined strings are the name of a series. A series has one colour.
        value: Column with the height of the bar.
        goal: Float, height of the line.

    Returns:
        The figure.
    """
    heights = {(_text(row, group), _text(row, series)): float(row[value]) for row in rows}
    groups, colors = (list(dict.fromkeys(names)) for names in zip(*heights, strict=True))
    width = 0.8 / len(colors)
    size = (3 + 0.3 * len(groups) * len(colors), 4)
    figure = require("matplotlib.figure", "plot").Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    for index, color in enumerate(colors):
        places = {place: heights.get((name, color)) for place, name in enumerate(groups)}
        known = {place: height for place, height in places.items() if height is not None}
        at = [place + (index - (len(colors) - 1) / 2) * width for place in known]
        axis.bar(at, known.values(), width, label=color)
    axis.axhline(goal, color="black", linewidth=1)
    axis.set_xticks(range(len(groups)), [name.replace(" ", "\n") for name in groups])
    axis.set_ylabel(value.replace("_", " "))
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=120)
    return figure


def _text(row, columns):
    return " ".join(row[column] for column in columns)
