"""Tests of `alignment serve`."""
