"""An archive that is spoken to by DIMSE (DICOM PS3.4, PS3.7, PS3.8): C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.pacs.config import PacsConfig
from exchange.pacs.failures import DeniedError, TransientError, library, with_retries
from exchange.pacs.guarding import Guard
from exchange.pacs.instances import Instance
from exchange.pacs.query import Query
from exchange.pacs.receiving import MAMMOGRAPHY_CLASSES, SYNTAXES, Receiver, handle_store, start_receiver
from exchange.pacs.trust import client_context

_VERIFICATION = "1.2.840.10008.1.1"
_FIND, _MOVE, _GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))  # study root
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_MOST_CONTEXTS = 128  # DICOM PS3.8: presentation context ids are the odd numbers of a byte
_GET_SYNTAXES = SYNTAXES[:-1]  # with as many classes as fit below


class DimseArchive:
    """A DIMSE peer; its association stays open between requests of one kind.

    Args:
        config: The PACS; its table `dimse` is there.

    Attributes:
        odd: What searches found and can't be asked for: its name, and why.

    Raises:
        ExchangeError: pynetdicom is not installed, or a certificate can't be read.
    """

    def __init__(self, config: PacsConfig) -> None:
        self._library: Any = library("pynetdicom")
        assert config.dimse is not None
        self._config = config
        self._peer = config.dimse
        self._name = f"{self._peer.called_ae}@{self._peer.host}:{self._peer.port}"
        self._tls = client_context(config.tls) if self._peer.tls else None
        entity = self._library.AE(ae_title=self._peer.calling_ae)
        entity.maximum_pdu_size = config.limits.pdu_kib * 1024
        entity.connection_timeout = config.timeouts.connect_s
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = config.timeouts.response_s
        self._entity = entity
        self._open: Any = None
        self._open_for: object = None
        self._receiver: Receiver | None = None
        self._came: dict[str, bytes] = {}
        self._wanted = ""
        self._refusals: list[str] = []
        self._store_pairs: dict[tuple[str, str], None] = {}
        self.odd: list[tuple[str, str]] = []

    def close(self) -> None:
        """Release the association, and stop the receiver of C-MOVE."""
        self._leave()
        if self._receiver is not None:
            self._receiver.stop()
            self._receiver = None

    def echo(self) -> str:
        """Send a C-ECHO, and return what answered.

        Raises:
            ExchangeError: The peer does not answer, or refuses.
        """
        association = self._associated("echo", [self._context(_VERIFICATION)])
        self._check(association.send_c_echo(), self._name)
        return f"{self._name} answers C-ECHO"

    def find(self, query: Query) -> list[Instance]:
        """Return the instances that a query finds, in the order of their UIDs; each search is retried by itself.

        Raises:
            ExchangeError: The peer fails or refuses, or finds too many.
        """
        found: dict[str, Instance] = {}
        studies = self._search("STUDY", {"StudyInstanceUID": "", "PatientID": "", **query.keys()})
        for study in studies:
            study_uid = _text(study, "StudyInstanceUID")
            if not query.accepts_study(study_uid, _text(study, "PatientID")) or self._is_odd(study_uid):
                continue
            keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": "", "Modality": query.modality or ""}
            for series in self._search("SERIES", keys):
                series_uid = _text(series, "SeriesInstanceUID")
                if query.modality and _text(series, "Modality") != query.modality:
                    continue
                if self._is_odd(series_uid):
                    continue
                keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
                for one in self._search("IMAGE", {**keys, "SOPInstanceUID": "", "SOPClassUID": ""}):
                    sop_uid = _text(one, "SOPInstanceUID")
                    if not self._is_odd(sop_uid):
                        found[sop_uid] = Instance(study_uid, series_uid, sop_uid, _text(one, "SOPClassUID"))
                if len(found) > self._config.limits.results:
                    cause = f"finds more than {self._config.limits.results} instances"
                    raise ExchangeError("query", cause, "narrow it, or raise limits.results")
        return [found[uid] for uid in sorted(found)]

    def retrieve(self, wanted: Instance) -> bytes:
        """Return an instance's DICOM file, by C-GET, or by C-MOVE to our own receiver.

        Raises:
            ExchangeError: The peer fails or refuses, or the instance does not come.
        """
        identifier = self._identifier(
            "IMAGE",
            {
                "StudyInstanceUID": wanted.study_uid,
                "SeriesInstanceUID": wanted.series_uid,
                "SOPInstanceUID": wanted.sop_uid,
            },
        )
        # Only what we asked for is kept.
        self._came.clear()
        self._refusals.clear()
        self._wanted = wanted.sop_uid
        if self._peer.retrieve == "get":
            answers = self._associated_to_get(wanted.sop_class).send_c_get(identifier, _GET)
        else:
            self._start_receiver()
            association = self._associated("move", [self._context(_MOVE)])
            answers = association.send_c_move(identifier, self._config.listen.ae_title, _MOVE)
        last: Any = None
        for status, _ in answers:
            last = status
        data = self._came.pop(wanted.sop_uid, None)
        self._wanted = ""
        if data is not None:
            return data
        if self._refusals:
            raise ExchangeError(wanted.sop_uid, self._refusals[0])
        self._check(last, wanted.sop_uid)
        raise ExchangeError(wanted.sop_uid, f"{self._name} did not send it", "look whether it is there")

    def store(self, instance: Instance, path: Path, data: bytes) -> None:
        """Store one instance by C-STORE, its bytes as they are; one that the peer has already is no failure.

        A peer that takes uncompressed instances in implicit VR alone gets them so.

        Args:
            instance: Who it is.
            path: Its DICOM file.
            data: The bytes of the file.

        Raises:
            ExchangeError: The peer fails, or refuses it.
        """
        from io import BytesIO

        import pydicom

        from embedder.quiet import quiet_libraries

        pair = (instance.sop_class, instance.syntax)
        if self._open_for == "store" and self._open is not None and not self._offers(pair):
            self._leave()
        # A new association offers what came before as well, so that a mixed lot takes few of them.
        self._store_pairs = dict.fromkeys([pair, *self._store_pairs][: _MOST_CONTEXTS // 2])
        pairs = list(self._store_pairs)
        contexts = [self._context(sop_class, [syntax]) for sop_class, syntax in pairs]
        contexts += [self._context(sop_class, [_IMPLICIT]) for sop_class, syntax in pairs if syntax == _EXPLICIT]
        association = self._associated("store", contexts)
        accepted = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in association.accepted_contexts}
        self._library._config.STORE_SEND_CHUNKED_DATASET = True  # from the file, not decoded
        try:
            if pair in accepted:
                status = association.send_c_store(path)
            elif instance.syntax == _EXPLICIT and (instance.sop_class, _IMPLICIT) in accepted:
                with quiet_libraries():
                    status = association.send_c_store(pydicom.dcmread(BytesIO(data)))
            else:
                from pydicom.uid import UID

                cause = f"{self._name} takes no {UID(instance.sop_class).name} in {UID(instance.syntax).name}"
                raise ExchangeError(instance.sop_uid, cause, "have its administrator allow it")
        except (ValueError, AttributeError, RuntimeError, OSError) as error:
            self._leave()
            if not association.is_established:
                raise TransientError(self._name, "the association ended", "look at the peer's log") from error
            raise ExchangeError(instance.sop_uid, f"can't be sent ({str(error)[:160]})") from error
        self._check(status, instance.sop_uid)

    # ------------------------------------------------------------------------------------------- associations

    def _context(self, abstract: str, syntaxes: Sequence[str] = (_EXPLICIT, _IMPLICIT)) -> Any:
        return self._library.build_context(abstract, list(syntaxes))

    def _offers(self, pair: tuple[str, str]) -> bool:
        return any(
            str(one.abstract_syntax) == pair[0] and pair[1] in [str(syntax) for syntax in one.transfer_syntax]
            for one in self._open.requestor.requested_contexts
        )

    def _associated_to_get(self, sop_class: str) -> Any:
        classes = list(dict.fromkeys([*([sop_class] if sop_class else []), *MAMMOGRAPHY_CLASSES]))
        classes = classes[: (_MOST_CONTEXTS - 1) // len(_GET_SYNTAXES)]
        if self._open_for == "get" and self._open is not None and not self._offers((sop_class, _EXPLICIT)):
            self._leave()
        # One context a syntax: the peer chooses one of a context, and may then have to convert what it keeps.
        contexts = [self._context(one, [syntax]) for one in classes for syntax in _GET_SYNTAXES]
        roles = [self._library.build_role(one, scp_role=True) for one in classes]
        keep = [self._keep, self._refusals.append, self._config.limits.instance_bytes]
        handlers = [(self._library.evt.EVT_C_STORE, handle_store, keep)]
        return self._associated("get", [self._context(_GET), *contexts], roles, handlers)

    def _associated(self, purpose: str, contexts: list[Any], roles: Sequence[Any] = (), handlers: Any = ()) -> Any:
        """Return an open association for a purpose: the one that is open, or a new one.

        Raises:
            TransientError: The peer can't be reached, or has no room at present.
            ExchangeError: It refuses us.
        """
        if self._open is not None and self._open_for == purpose and self._open.is_established:
            return self._open
        self._leave()
        association = self._entity.associate(
            self._peer.host,
            self._peer.port,
            contexts,
            ae_title=self._peer.called_ae,
            max_pdu=self._config.limits.pdu_kib * 1024,
            ext_neg=list(roles),
            tls_args=(self._tls, self._peer.host) if self._tls is not None else None,
            evt_handlers=[*handlers, *Guard(self._config.limits, self._config.timeouts).handlers()],
        )
        if association.is_established:
            self._open, self._open_for = association, purpose
            return association
        if association.is_rejected:
            answer = association.acceptor.primitive
            cause = f"rejects the association ({answer.source_str}: {answer.reason_str})"
            if answer.result == 2:  # rejected-transient, DICOM PS3.8, table 9-21
                raise TransientError(self._name, cause, "try later")
            remedy = f"check called_ae, and that it knows {self._peer.calling_ae} (calling_ae)"
            raise DeniedError(self._name, cause, remedy)
        if association.rejected_contexts and not association.accepted_contexts:
            names = sorted({one.abstract_syntax.name for one in association.rejected_contexts})
            cause = f"does not offer {', '.join(names[:3])}"
            raise ExchangeError(self._name, cause, "have its administrator allow it")
        raise self._unreachable()

    def _unreachable(self) -> ExchangeError:
        """Return why no association came about: pynetdicom tells only its log."""
        place, wait = (self._peer.host, self._peer.port), self._config.timeouts.connect_s
        try:
            with socket.create_connection(place, wait) as connection:
                if self._tls is not None:
                    self._tls.wrap_socket(connection, server_hostname=self._peer.host).close()
        except ssl.SSLError as error:
            cause = f"the TLS connection fails ({getattr(error, 'verify_message', '') or error.reason or error})"
            return DeniedError(self._name, cause, "check tls.ca_file, tls.certificate and the host's name")
        except OSError as error:
            cause = f"can't be reached ({error.strerror or error})"
            return TransientError(self._name, cause, "check host and port, and that the peer runs")
        return TransientError(
            self._name, "ends the connection instead of an association", "check port and tls, and the peer's log"
        )

    def _leave(self) -> None:
        association, self._open, self._open_for = self._open, None, None
        if association is not None and association.is_established:
            with contextlib.suppress(Exception):  # the peer may be gone
                association.release()

    def _check(self, status: Any, subject: str) -> None:
        """Raise what a final status says; an empty one means that no answer came."""
        if status is None or "Status" not in status:
            self._leave()
            raise TransientError(self._name, "ended the association, or did not answer in time", "see the peer's log")
        code = int(status.Status)
        # Success, and warnings with which the request is done: PS3.7, annex C, PS3.4, table B.2-1.
        if code == 0 or 0xB000 <= code <= 0xBFFF or code in (0x0001, 0x0107, 0x0116):
            return
        comment = str(status.get("ErrorComment") or "").strip()
        cause = f"{self._name} refuses it (status 0x{code:04X}{', ' + comment[:80] if comment else ''})"
        if code == 0xA801:
            title = self._config.listen.ae_title
            remedy = f"register {title} with the address in [listen] there"
            raise ExchangeError(subject, f"{self._name} does not know our receiver {title}", remedy)
        if 0xA700 <= code <= 0xA7FF:
            raise TransientError(subject, f"{cause}: it is out of resources")
        raise ExchangeError(subject, cause, "see the peer's log")

    # ------------------------------------------------------------------------------------------ data sets

    def _identifier(self, level: str, keys: dict[str, str]) -> Any:
        from pydicom.dataset import Dataset

        from embedder.quiet import quiet_libraries

        identifier = Dataset()
        with quiet_libraries():
            identifier.QueryRetrieveLevel = level
            for name, value in keys.items():
                setattr(identifier, name, value)
            if not all(value.isascii() for value in keys.values()):
                identifier.SpecificCharacterSet = "ISO_IR 192"
        return identifier

    def _search(self, level: str, keys: dict[str, str]) -> list[Any]:
        return with_retries(self._config.retries, partial(self._search_once, self._identifier(level, keys)))

    def _search_once(self, identifier: Any) -> list[Any]:
        found: list[Any] = []
        association = self._associated("find", [self._context(_FIND)])
        last: Any = None
        for status, one in association.send_c_find(identifier, _FIND):
            last = status
            if one is not None:
                found.append(one)
            if len(found) > self._config.limits.results:
                association.abort()
                cause = f"finds more than {self._config.limits.results} answers"
                raise ExchangeError("query", cause, "narrow it, or raise limits.results")
        self._check(last, self._name)
        return found

    def _is_odd(self, uid: str) -> bool:
        if uid and not set(uid) & set("*?\\"):
            return False
        self.odd.append((uid[:80] or "an instance", "is named by no UID; tell the peer's administrator"))
        return True

    def _keep(self, instance: Instance, data: bytes) -> None:
        if instance.sop_uid != self._wanted:
            raise ExchangeError(instance.sop_uid, "was not asked for")
        self._came[instance.sop_uid] = data

    def _start_receiver(self) -> None:
        if self._receiver is None:
            say: Callable[[str], None] = self._refusals.append
            self._receiver = start_receiver(
                self._config.listen,
                self._config.listen.callers or (self._peer.called_ae,),
                self._keep,
                say,
                self._config.limits,
                self._config.timeouts,
            )


def _text(found: Any, name: str) -> str:
    return str(found.get(name) or "").strip("\0 ")
