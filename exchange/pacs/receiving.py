"""A receiver of instances: a C-STORE and C-ECHO SCP (DICOM PS3.4, annexes A and B)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exchange import ExchangeError
from exchange.pacs.config import Limits, Timeouts
from exchange.pacs.failures import library
from exchange.pacs.guarding import Guard, begin_next_instance
from exchange.pacs.instances import Instance, identify
from exchange.pacs.listenconfig import Listen
from exchange.pacs.trust import receiver_context

SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000

SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first order
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.2",  # explicit VR big endian
)
"""Transfer syntaxes that are taken: not the deflated one, a few bytes of which can fill a memory."""

MAMMOGRAPHY_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1.2",  # digital mammography, for presentation
    "1.2.840.10008.5.1.4.1.1.1.2.1",  # for processing
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # breast tomosynthesis
    "1.2.840.10008.5.1.4.1.1.13.1.4",  # breast projection, for presentation
    "1.2.840.10008.5.1.4.1.1.13.1.5",  # breast projection, for processing
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture (digitised films)
    "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray, for presentation
    "1.2.840.10008.5.1.4.1.1.88.50",  # mammography CAD report
    "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive report
    "1.2.840.10008.5.1.4.1.1.88.34",  # comprehensive 3D report
    "1.2.840.10008.5.1.4.1.1.88.22",  # enhanced report
    "1.2.840.10008.5.1.4.1.1.11.1",  # greyscale presentation state
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
)
"""SOP classes that a study of mammograms brings."""

Keep = Callable[[Instance, bytes], None]


def handle_store(event: Any, keep: Keep, say: Callable[[str], None], largest: int) -> int:
    """Answer a C-STORE request: keep what came, and return the status, success only after it is kept.

    Args:
        event: pynetdicom's.
        keep: Keeps an instance durably, or raises.
        say: Told of what is refused, in one line.
        largest: Bytes of the largest instance that is kept.
    """
    begin_next_instance(event)
    caller = f"{str(event.assoc.requestor.ae_title).strip()}@{event.assoc.requestor.address}"
    sop_uid = str(event.request.AffectedSOPInstanceUID or "")
    try:
        data = event.encoded_dataset()
        if len(data) > largest:
            say(f"refused {sop_uid[:80]} of {caller}: it is larger than {largest} bytes; see limits.instance_mib")
            return OUT_OF_RESOURCES
        instance = identify(data, sop_uid[:80])
        if instance.sop_uid != sop_uid or instance.sop_class != str(event.request.AffectedSOPClassUID):
            say(f"refused {sop_uid[:80]} of {caller}: its data set names another instance or class")
            return MISMATCH
    except Exception as error:  # a hostile request must not end the receiver
        say(f"refused {sop_uid[:80]} of {caller}: {error}")
        return CANNOT_UNDERSTAND
    try:
        keep(instance, data)
    except OSError as error:
        say(f"refused {sop_uid[:80]} of {caller}: it can't be written ({error.strerror})")
        return OUT_OF_RESOURCES
    except Exception as error:
        say(f"refused {sop_uid[:80]} of {caller}: {error}")
        return OUT_OF_RESOURCES
    return SUCCESS


@dataclass
class Receiver:
    """A running receiver.

    Args:
        server: pynetdicom's.
    """

    server: Any

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server.server_address[1])

    def stop(self) -> None:
        """Take no more connections, and end those that are open."""
        open_ones = self.server.active_associations
        self.server.shutdown()
        for association in open_ones:
            association.abort()


def start_receiver(
    listen: Listen,
    callers: Sequence[str],
    keep: Keep,
    say: Callable[[str], None],
    limits: Limits,
    timeouts: Timeouts,
) -> Receiver:
    """Start a receiver in threads of its own.

    Args:
        listen: Title, address, port and certificate.
        callers: AE titles that are listened to.
        keep: Keeps an instance durably, or raises: the caller is then told that it was not stored.
        say: Told of what is refused, in one line.
        limits: Of associations, PDU and instance.
        timeouts: Of silences.

    Raises:
        ExchangeError: No caller is named, the port is taken, or a certificate can't be read.
    """
    pynetdicom = library("pynetdicom")
    if not callers:
        raise ExchangeError("listen.callers", "names nobody", "write the AE titles that may send")
    entity = pynetdicom.AE(ae_title=listen.ae_title)
    entity.maximum_pdu_size = limits.pdu_kib * 1024
    entity.maximum_associations = limits.associations
    entity.require_calling_aet = list(callers)
    entity.require_called_aet = True
    entity.network_timeout = entity.dimse_timeout = timeouts.response_s
    entity.acse_timeout = timeouts.connect_s
    entity.add_supported_context("1.2.840.10008.1.1")  # verification
    classes = dict.fromkeys(MAMMOGRAPHY_CLASSES)
    classes |= dict.fromkeys(context.abstract_syntax for context in pynetdicom.AllStoragePresentationContexts)
    for sop_class in classes:
        entity.add_supported_context(sop_class, list(SYNTAXES))
    handlers = [
        (pynetdicom.evt.EVT_C_STORE, handle_store, [keep, say, limits.instance_bytes]),
        *Guard(limits, timeouts).handlers(),
    ]
    place = f"{listen.host}:{listen.port}"
    try:
        server = entity.start_server(
            (listen.host, listen.port),
            block=False,
            ssl_context=receiver_context(listen, timeouts.connect_s),
            evt_handlers=handlers,
        )
    except OSError as error:
        raise ExchangeError(
            place, f"can't be listened on ({error.strerror})", "free the port, or name another"
        ) from error
    return Receiver(server)
