"""The radiologist's page: a web server for a gallery, and the page that it serves."""

from typing import Any

from errors import MammoseekError


class ViewerError(MammoseekError):
    """A server that can't be started as asked, a request that can't be answered, or records that were tampered with."""


class StatusError(ViewerError):
    """A request that is refused with a status of its own.

    Args:
        status: Its HTTP status.
    """

    def __init__(self, status: int, subject: object, cause: str, remedy: str = "") -> None:
        super().__init__(subject, cause, remedy)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.subject, self.cause, self.remedy)
