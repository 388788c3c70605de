import numpy as np


class Shuffled:
    """A shuffled `pandas.Series`, as far as the package uses one: `[]` looks up labels, not rows.

    Args:
        values: The values of the rows.
        index: The label of each row.
    """

    ndim = 1

    def __init__(self, values, index):
        self.values, self.index = list(values), list(index)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __getitem__(self, label):
        return self.values[self.index.index(label)]
