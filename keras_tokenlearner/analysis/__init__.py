"""Model costs, and attention maps of learned tokens."""

from keras_tokenlearner.analysis import cost_rules
from keras_tokenlearner.analysis.clip_pictures import animate_clip_maps, draw_clip_maps
from keras_tokenlearner.analysis.costs import Cost, ModelCosts, costs, count
from keras_tokenlearner.analysis.maps import (
    position_entropy,
    token_maps,
    token_similarity,
    with_token_maps,
)
from keras_tokenlearner.analysis.paper_costs import catalog_costs, paper_costs
from keras_tokenlearner.analysis.pictures import draw_token_entropy, draw_token_maps
from keras_tokenlearner.analysis.plots import draw_costs, draw_token_similarity

__all__ = [
    "animate_clip_maps",
    "catalog_costs",
    "Cost",
    "cost_rules",
    "costs",
    "count",
    "draw_clip_maps",
    "draw_costs",
    "draw_token_entropy",
    "draw_token_maps",
    "draw_token_similarity",
    "ModelCosts",
    "paper_costs",
    "position_entropy",
    "token_maps",
    "token_similarity",
    "with_token_maps",
]
