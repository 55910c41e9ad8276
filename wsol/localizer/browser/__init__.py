"""An exported localizer as one HTML page that finds boxes in a browser, without a server."""
