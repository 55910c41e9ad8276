"""Heatmaps and thresholds -> boxes, by the published contour protocol."""

from wsol.boxes.geometry import iou, rescale
from wsol.boxes.heatmap_boxes import all_boxes, largest_boxes, outer_boxes

__all__ = ["all_boxes", "iou", "largest_boxes", "outer_boxes", "rescale"]
