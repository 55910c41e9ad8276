"""Measurements of speed and memory, and the reference implementations they compare with."""
