"""The one error that mammoseek's commands print: what it is about, what is wrong, what to do."""


class MammoseekError(Exception):
    """A mistake in the input or the environment, told so that its reader can mend it.

    Each room has its own subclass. The command line prints the message without a traceback and exits with a
    non-zero status; anything else that is raised is a defect of mammoseek.

    Args:
        subject: What the error is about, most often a file's path.
        cause: What is wrong with it.
        remedy: What to do about it; empty where the cause says it all.

    >>> print(MammoseekError("a.dcm", "the file is empty", "copy it again from its source"))
    a.dcm: the file is empty; copy it again from its source
    """

    def __init__(self, subject: object, cause: str, remedy: str = "") -> None:
        self.subject = str(subject)
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{self.subject}: {cause}" + (f"; {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type["MammoseekError"], tuple[str, str, str]]:
        """Keep the three parts when the error crosses a process boundary."""
        return type(self), (self.subject, self.cause, self.remedy)
