"""Detectors trained on pseudo labels: on boxes around heatmaps, which need no box annotations."""
