"""Neighbours and vectors → labels: votes, linear heads, calibration, and how well they do."""

from errors import MammoseekError


class ClassificationError(MammoseekError):
    """Labels, vectors or splits from which no honest class probability or score can be made."""
