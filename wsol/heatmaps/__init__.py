"""Heatmap methods: a classifier, an image and a class -> a heatmap in [0,1]."""
