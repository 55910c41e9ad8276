"""Measurements of speed and memory, and reference implementations for comparison."""
