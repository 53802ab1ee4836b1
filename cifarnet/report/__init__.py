"""The report's tables for any set of runs: read results, tabulate them beside the published numbers, render a document."""

from cifarnet.report.document import render
from cifarnet.report.results import Result, read_result
from cifarnet.report.tables import build

__all__ = ["Result", "build", "read_result", "render"]
