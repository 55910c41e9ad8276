"""Localization scores, threshold policies and baselines."""
