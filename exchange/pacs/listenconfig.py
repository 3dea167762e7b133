"""The configuration of our own receiver, and of what is done with the studies that come."""

from dataclasses import dataclass
from typing import Literal

from exchange import ExchangeError
from exchange.pacs.checks import check_ae_title, check_range

Candidates = Literal["never", "without-cad"]

_LONGEST_KEPT = 36500.0  # days


@dataclass(frozen=True)
class Listen:
    """Our own receiver.

    Args:
        ae_title: Its AE title.
        host: The address it listens on; the machine itself unless told otherwise.
        port: Its port.
        callers: AE titles that may send; nobody else is listened to.
        spool: Folder that keeps what was received and what became of it.
        idle_s: Seconds without a further image after which a study is taken for complete.
        attempts: How often the processing of a study may fail.
        processing_s: Seconds that the processing of one study may take; one that takes longer is ended, and has failed.
        candidates: `without-cad` searches the images of a study that came without a CAD report for candidates of our
            own; `never` leaves such a study without a report. It is `never` unless told otherwise: our own candidates
            miss many lesions, and a report of them is in the archive for good.
        keep_days: Days after which the images and reports of a study that was sent are deleted from the spool; 0 is as
            soon as it was sent. What failed is never deleted by itself.
        keep_journal_days: Days after which what a sent study is known by (digests and UIDs, no pixels) is deleted too.
            Until then the same images give nothing new when they are sent again.
        certificate: PEM file of its certificate, for TLS.
        private_key: PEM file of its key.
        client_ca: PEM file of the authorities whose certificate a caller must show; None to ask for none.
    """

    ae_title: str = "MAMMOSEEK"
    host: str = "127.0.0.1"
    port: int = 11112
    callers: tuple[str, ...] = ()
    spool: str = "spool"
    idle_s: float = 30.0
    attempts: int = 3
    processing_s: float = 900.0
    candidates: Candidates = "never"
    keep_days: float = 7.0
    keep_journal_days: float = 365.0
    certificate: str | None = None
    private_key: str | None = None
    client_ca: str | None = None

    def __post_init__(self) -> None:
        check_ae_title("ae_title", self.ae_title)
        for caller in self.callers:
            check_ae_title("callers", caller)
        check_range("port", self.port, 1, 65535)
        check_range("idle_s", self.idle_s, 0.01, 86400.0)
        check_range("attempts", self.attempts, 1, 100)
        check_range("processing_s", self.processing_s, 0.01, 86400.0)
        check_range("keep_days", self.keep_days, 0.0, _LONGEST_KEPT)
        check_range("keep_journal_days", self.keep_journal_days, 0.0, _LONGEST_KEPT)
        if self.keep_journal_days < self.keep_days:
            cause = f"keep_journal_days is {self.keep_journal_days:g}, less than keep_days"
            raise ExchangeError("configuration", cause, "a study is known for as long as it is kept, or longer")
        if (self.certificate is None) != (self.private_key is None) or (self.client_ca and not self.certificate):
            remedy = "write both for TLS, and client_ca only with them"
            raise ExchangeError("configuration", "certificate and private_key go together", remedy)
