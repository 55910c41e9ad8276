"""Ground truth, predictions and boxes, read from files and written to them."""
