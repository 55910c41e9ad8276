"""Heatmaps and thresholds -> boxes, by the published contour protocol."""

from wsol.boxes.heatmap_boxes import all_boxes, iou, largest_boxes, largest_contours, rescale

__all__ = ["all_boxes", "iou", "largest_boxes", "largest_contours", "rescale"]
