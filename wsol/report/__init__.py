"""The report of an evaluation: one HTML file that needs no other file."""

from wsol.report.page import write_report

__all__ = ["write_report"]
