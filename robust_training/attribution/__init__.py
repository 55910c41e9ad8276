"""Scores of a classifier, attributions of a score, and the similarity of two attribution maps."""
