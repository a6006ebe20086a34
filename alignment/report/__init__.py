"""One HTML page that tells what ran and what came of it."""

from alignment.report.build import build

__all__ = ["build"]
