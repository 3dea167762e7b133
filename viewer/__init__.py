"""The radiologist's page: a web server for a gallery, and the page that it serves."""

from errors import MammoseekError


class ViewerError(MammoseekError):
    """A server that can't be started as asked, a request that can't be answered, or records that were tampered with."""
