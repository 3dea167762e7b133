"""An archive that is spoken to by DICOMweb (DICOM PS3.18): QIDO-RS, WADO-RS, STOW-RS.

dicomweb-client asks the searches. It would decode and encode again every instance that it fetches or stores, and takes
an answer that ends early for a whole one; instances therefore pass here as the bytes that they are.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.pacs.config import PacsConfig
from exchange.pacs.failures import DeniedError, TransientError, library, with_retries
from exchange.pacs.instances import Instance, identify
from exchange.pacs.query import Query

_PAGE = 500
_LARGEST_ANSWER = 64 << 20  # bytes of a search's or a store's answer
_ENVELOPE = 1 << 16  # bytes of a multipart answer around its one part
_CHUNK = 1 << 18

# DICOM PS3.18, table 10.5.3-1 (store transaction), and PS3.4, table B.2-1.
_REASONS = {
    0xA700: "it is out of resources",
    0xA900: "the data set does not match its SOP class",
    0xC000: "it does not understand the data set",
    0x0110: "processing failed",
    0x0122: "it does not take this SOP class",
    0xC122: "it does not take this transfer syntax",
}


class DicomwebArchive:
    """A DICOMweb server.

    Args:
        config: The PACS; its table `dicomweb` is there.

    Attributes:
        odd: What searches found and can't be asked for: its name, and why.

    Raises:
        ExchangeError: A library is not installed, or a secret or certificate can't be read.
    """

    def __init__(self, config: PacsConfig) -> None:
        requests, client = library("requests"), library("dicomweb_client")
        assert config.dicomweb is not None
        self._config = config
        self._server = config.dicomweb
        self._requests: Any = requests
        session = requests.Session()
        # Neither a .netrc nor REQUESTS_CA_BUNDLE of the environment may overrule what the configuration says.
        session.trust_env = False
        for path in (config.tls.ca_file, config.tls.certificate, config.tls.private_key):
            if path is not None and not Path(path).is_file():
                raise ExchangeError(path, "there is no such file", "name the PEM file in [tls]")
        session.verify = (config.tls.ca_file or True) if config.tls.verify else False
        if config.tls.certificate is not None:
            session.cert = (config.tls.certificate, config.tls.private_key)
        if config.credentials is not None:
            session.auth = _Authorization(config)
        self._session = session
        self._timeout = (config.timeouts.connect_s, config.timeouts.response_s)
        self._client = client.DICOMwebClient(
            url=self._server.url.rstrip("/"),
            session=session,
            qido_url_prefix=self._server.qido.strip("/") or None,
            callback=_bound_answer,
            # What a UID may be is checked here: one odd answer must not end the whole search.
            permissive_uid=True,
            timeout=self._timeout,
        )
        self._client.set_http_retry_params(retry=False)
        self.odd: list[tuple[str, str]] = []

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def echo(self) -> str:
        """Ask for one study, and return what answered.

        Raises:
            ExchangeError: It does not answer, or refuses.
        """
        with self._failures("search"):
            self._client.search_for_studies(limit=1)
        return f"{self._server.url} answers searches (QIDO-RS)"

    def find(self, query: Query) -> list[Instance]:
        """Return the instances that a query finds, in the order of their UIDs; each search is retried by itself.

        Raises:
            ExchangeError: The server fails or refuses, answers nonsense, or finds too many.
        """
        found: dict[str, Instance] = {}
        for study in self._pages(self._client.search_for_studies, query.keys()):
            study_uid = _text(study, "0020000D")
            if not query.accepts_study(study_uid, _text(study, "00100020")) or self._is_odd(study_uid):
                continue
            keys = {"Modality": query.modality} if query.modality else {}
            for series in self._pages(self._client.search_for_series, keys, study_uid):
                series_uid = _text(series, "0020000E")
                if query.modality and _text(series, "00080060") != query.modality:
                    continue
                if self._is_odd(series_uid):
                    continue
                for one in self._pages(self._client.search_for_instances, {}, study_uid, series_uid):
                    sop_uid = _text(one, "00080018")
                    if not self._is_odd(sop_uid):
                        found[sop_uid] = Instance(study_uid, series_uid, sop_uid, _text(one, "00080016"))
                if len(found) > self._config.limits.results:
                    cause = f"finds more than {self._config.limits.results} instances"
                    raise ExchangeError("query", cause, "narrow it, or raise limits.results")
        return [found[uid] for uid in sorted(found)]

    def _is_odd(self, uid: str) -> bool:
        if _can_be_asked(uid):
            return False
        self.odd.append((uid[:80] or "an instance", "is named by no UID; tell the server's administrator"))
        return True

    def _page(self, search: Callable[..., Any], keys: dict[str, str], uids: tuple[str, ...], offset: int) -> Any:
        with self._failures("search"):
            return search(*uids, search_filters=keys, limit=_PAGE, offset=offset)

    def _pages(self, search: Callable[..., Any], keys: dict[str, str], *uids: str) -> Iterator[dict[str, Any]]:
        offset, before = 0, None
        while True:
            page = with_retries(self._config.retries, partial(self._page, search, keys, uids, offset))
            if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
                raise ExchangeError(self._server.url, "answers a search with something else than DICOM JSON")
            # A server that knows no offset gives the same page for ever.
            if not page or page == before:
                return
            yield from page
            if len(page) < _PAGE or offset > self._config.limits.results:
                return
            before, offset = page, offset + len(page)

    def retrieve(self, wanted: Instance) -> bytes:
        """Return an instance's DICOM file, in the transfer syntax that the server keeps.

        Raises:
            ExchangeError: The server fails or refuses, or answers with something else or too much.
        """
        base = "/".join(part for part in (self._server.url.rstrip("/"), self._server.wado.strip("/")) if part)
        uids = (wanted.study_uid, wanted.series_uid, wanted.sop_uid)
        for uid in uids:
            if not _can_be_asked(uid):
                raise ExchangeError(uid[:80], "is no UID", "tell the server's administrator")
        url = f"{base}/studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        with self._failures(wanted.sop_uid):
            answer = self._session.get(
                url, headers={"Accept": accept}, stream=True, timeout=self._timeout, allow_redirects=False
            )
            with answer:
                self._check_status(answer, wanted.sop_uid)
                largest = self._config.limits.instance_bytes
                body = _read(answer, largest + _ENVELOPE, wanted.sop_uid)
        data = _only_part(body, answer.headers.get("Content-Type", ""), wanted.sop_uid)
        if len(data) > largest:
            raise ExchangeError(wanted.sop_uid, f"is larger than {largest} bytes", "raise limits.instance_mib")
        if identify(data, wanted.sop_uid).sop_uid != wanted.sop_uid:
            raise ExchangeError(wanted.sop_uid, "the server sent another instance", "tell the server's administrator")
        return data

    def store(self, instance: Instance, path: Path, data: bytes) -> None:
        """Store one instance; one that the server has already is no failure.

        Args:
            instance: Who it is.
            path: Its DICOM file.
            data: The bytes of the file.

        Raises:
            ExchangeError: The server fails, or refuses it.
        """
        base = "/".join(part for part in (self._server.url.rstrip("/"), self._server.stow.strip("/")) if part)
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        with self._failures(instance.sop_uid):
            answer = self._session.post(
                f"{base}/studies",
                data=b"".join((head, data, f"\r\n--{boundary}--\r\n".encode())),
                headers=headers,
                stream=True,
                timeout=self._timeout,
                allow_redirects=False,
            )
            with answer:
                if answer.status_code != 409:  # its body says what was refused
                    self._check_status(answer, instance.sop_uid)
                body = _read(answer, _LARGEST_ANSWER, instance.sop_uid)
        self._check_stored(body, instance, answer.status_code)

    def _check_stored(self, body: bytes, instance: Instance, status: int) -> None:
        try:
            said: Any = json.loads(body) if body.strip() else {}
            said = said[0] if isinstance(said, list) and said else said
            failed = said.get("00081198", {}).get("Value", []) or []
            stored = said.get("00081199", {}).get("Value", []) or []
            reason = int((failed[0].get("00081197", {}).get("Value") or [0])[0]) if failed else 0
            kept = {_text(one, "00081155") for one in stored}
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            cause = "the server's answer says not whether it is stored (no DICOM JSON)"
            raise ExchangeError(instance.sop_uid, cause, "look whether it is there") from error
        if failed or status == 409:
            cause = f"{self._server.url} refuses it: {_REASONS.get(reason, 'no reason that we know')} (0x{reason:04X})"
            if reason == 0xA700 or 0xA700 <= reason <= 0xA7FF:
                raise TransientError(instance.sop_uid, cause)
            raise ExchangeError(instance.sop_uid, cause, "mend the file, or the server's settings")
        if body.strip() and instance.sop_uid not in kept:
            cause = "the server's answer does not count it among what is stored"
            raise ExchangeError(instance.sop_uid, cause, "look whether it is there")

    @contextmanager
    def _failures(self, subject: str) -> Iterator[None]:
        """Turn what the libraries raise into our errors, transient where a wait may help."""
        errors = self._requests.exceptions
        url = self._server.url
        try:
            yield
        except errors.HTTPError as error:
            self._check_status(error.response, subject)
            raise ExchangeError(url, f"answers with status {error.response.status_code}") from error
        except errors.SSLError as error:
            cause = f"the TLS connection fails ({_reason(error)})"
            remedy = "check tls.ca_file, tls.certificate and the host's name"
            raise DeniedError(url, cause, remedy) from error
        except errors.Timeout as error:
            raise TransientError(url, "does not answer in time", "raise timeouts, or look at the server") from error
        except (errors.ConnectionError, errors.ChunkedEncodingError, errors.ContentDecodingError) as error:
            cause = f"the connection fails ({_reason(error)})"
            raise TransientError(url, cause, "check its address, and that the server runs") from error
        except errors.JSONDecodeError as error:
            raise ExchangeError(url, "answers a search with something else than DICOM JSON") from error
        except errors.RequestException as error:
            raise ExchangeError(url, f"can't be asked ({_reason(error)})") from error
        except OSError as error:
            raise ExchangeError(url, f"can't be asked ({_reason(error)})", "check [tls]") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # dicomweb-client's, for a UID or an answer that is no good.
            raise ExchangeError(url, f"answers nonsense ({_reason(error)})") from error

    def _check_status(self, answer: Any, subject: str) -> None:
        status = answer.status_code
        if 200 <= status < 300:
            return
        url = self._server.url
        if status in (408, 425, 429) or status >= 500:
            raise TransientError(url, f"answers with status {status}", "look at the server's log")
        if status == 401:
            raise DeniedError(url, "does not accept our credentials (status 401)", "check [credentials]")
        known = {
            403: (url, "does not allow it (status 403)", "ask the server's administrator for the right"),
            404: (subject, "is not there (status 404)", "check it, and the paths in [dicomweb]"),
        }
        if status in known:
            raise ExchangeError(*known[status])
        if 300 <= status < 400:
            cause, remedy = f"sends us elsewhere (status {status})", "write the new address in [dicomweb]"
            raise ExchangeError(url, cause, remedy)
        raise ExchangeError(subject, f"{url} refuses it (status {status})", "look at the server's log")


class _Authorization:
    """Adds the credentials to each request; `requests` drops them when it is sent to another host."""

    def __init__(self, config: PacsConfig) -> None:
        assert config.credentials is not None
        secret = config.credentials.secret()
        if config.credentials.kind == "bearer":
            if not secret.isascii():
                raise ExchangeError("credentials", "the token is no ASCII text", "get a new one")
            self._value = f"Bearer {secret}"
        else:
            from base64 import b64encode

            self._value = "Basic " + b64encode(f"{config.credentials.user}:{secret}".encode()).decode()

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = self._value
        return request


def _bound_answer(answer: Any, *_: object, stream: bool = False, **__: object) -> None:
    """Read a search's answer up to a limit, before dicomweb-client would read all of it."""
    if not stream:
        answer._content = _read(answer, _LARGEST_ANSWER, answer.url)
        answer._content_consumed = True


def _read(answer: Any, largest: int, subject: str) -> bytes:
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK):
        body += chunk
        if len(body) > largest:
            raise ExchangeError(subject, f"the server's answer is larger than {largest} bytes", "see [limits]")
    return bytes(body)


def _only_part(body: bytes, content_type: str, subject: str) -> bytes:
    """Return the one part of a multipart/related message (RFC 2387, RFC 2046); its end must be there."""
    from email.message import Message

    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not boundary:
        raise ExchangeError(subject, f"the server sent {content_type[:80] or 'no type'!r} and not a DICOM file")
    mark = b"--" + boundary.encode("ascii", "replace")
    start = body.find(mark)
    begin = body.find(b"\r\n\r\n", start)
    # The last one: the mark can't stand in the part, and all behind it is no part of the message.
    end = body.rfind(b"\r\n" + mark)
    if start < 0 or begin < 0 or end < begin or body[end + 2 + len(mark) :][:2] != b"--":
        raise TransientError(subject, "the server's answer ends too early", "look at the server")
    data = body[begin + 4 : end]
    if b"\r\n" + mark in data:
        raise ExchangeError(subject, "the server sent several instances instead of one")
    return data


def _can_be_asked(uid: str) -> bool:
    """Tell whether a UID may stand in an address: one with slashes or of dots alone would lead to another service."""
    return re.fullmatch(r"[0-9A-Za-z._-]{1,64}", uid) is not None and bool(uid.strip("."))


def _text(found: dict[str, Any], tag: str) -> str:
    """Return an attribute's first value of a DICOM JSON object; empty where it has none."""
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip("\0 ") if isinstance(values, list) and values and values[0] is not None else ""


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one short line: libraries wrap them three deep."""
    inner: BaseException = error
    while True:
        nested = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(nested, BaseException):
            break
        inner = nested
    text = " ".join(str(inner).split()) or type(inner).__name__
    return text.rpartition(": ")[2][:160] if "object at 0x" in text else text[:160]
