"""Vectors → neighbours: a durable gallery of embedded findings, and what is asked of it. Knows no torch."""

from errors import MammoseekError


class GalleryError(MammoseekError):
    """A gallery that is missing, damaged, of another model, locked, or that can't be written."""


class QueryError(MammoseekError):
    """A question that can't be answered: a bad filter, vector, row or number of neighbours."""
