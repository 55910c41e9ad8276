"""Localizer: images in, boxes out; exported programs, hub, overlays."""
