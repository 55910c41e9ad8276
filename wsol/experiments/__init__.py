"""Whole experiments: evaluating models, comparing training methods, removing and retraining."""
