"""The report's tables for any set of runs: read results, tabulate them beside the published numbers, render a document."""

from cifarnet.analysis.report.document import render
from cifarnet.analysis.report.results import Result, read_results
from cifarnet.analysis.report.tables import build

__all__ = ["Result", "build", "read_results", "render"]
