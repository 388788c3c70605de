"""What a model costs and what it looks at."""

from keras_tokenlearner.analysis import cost_rules
from keras_tokenlearner.analysis.clip_pictures import animate_clip_maps, draw_clip_maps
from keras_tokenlearner.analysis.costs import Cost, ModelCosts, costs, count
from keras_tokenlearner.analysis.maps import token_maps, with_token_maps
from keras_tokenlearner.analysis.paper_costs import catalog_costs, paper_costs
from keras_tokenlearner.analysis.pictures import draw_token_maps
