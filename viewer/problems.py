"""The errors of the page's routes that have a status of their own; every other one of ours is a wrong input (422)."""

from viewer import ViewerError


class NotFoundError(ViewerError):
    """An id that names nothing here (404)."""


class ConflictError(ViewerError):
    """What is asked for can't be had of this study or image, however it is asked (409)."""


class BusyError(ViewerError):
    """Too much is waiting already, or what is asked for is still being made (503).

    Args:
        subject: See `MammoseekError`.
        cause: See `MammoseekError`.
        remedy: See `MammoseekError`.
        retry_after: Seconds after which it is worth asking again.
    """

    def __init__(self, subject: object, cause: str, remedy: str = "", retry_after: int = 1) -> None:
        super().__init__(subject, cause, remedy)
        self.retry_after = retry_after


def sayable(text: str) -> str:
    """Return a text as JSON can say it: names of files need not be UTF-8.

    >>> sayable("scan \\udcff.png")
    'scan �.png'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
