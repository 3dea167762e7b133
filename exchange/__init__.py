"""How findings come in and results go out: detections, reports, PACS."""

from errors import MammoseekError


class ExchangeError(MammoseekError):
    """Input of another system that can't be used, or output that can't be written."""
