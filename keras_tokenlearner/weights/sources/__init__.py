"""The sources of weights: one file for each family of libraries."""
