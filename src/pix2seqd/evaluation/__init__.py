"""Scores of a model on `images` and `clips`, its speed (`benchmark`), and the paper's figures (`sweep`, `figures`)."""
