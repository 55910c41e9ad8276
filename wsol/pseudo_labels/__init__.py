"""Detectors taught by a localizer's boxes: teachers, students, and the school that scores both."""
