"""Recipes: how the models that we report were trained."""
