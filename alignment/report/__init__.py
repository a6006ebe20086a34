"""One HTML page of what ran, with its results."""

from alignment.report.build import build

__all__ = ["build"]
