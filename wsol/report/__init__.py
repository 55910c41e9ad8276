"""A page of results for people: one file of HTML that needs nothing else."""

from wsol.report.entry import Entry
from wsol.report.page import write_report

__all__ = ["Entry", "write_report"]
