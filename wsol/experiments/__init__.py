"""Whole experiments: evaluation, comparison of methods, remove-and-retrain, trained detectors."""
