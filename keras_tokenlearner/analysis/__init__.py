"""What a model costs and what it looks at."""

from keras_tokenlearner.analysis.costs import Cost, ModelCosts, costs, count
