"""Detectors trained on pseudo labels: boxes around heatmaps, without box annotations."""
