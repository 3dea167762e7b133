"""Names that stand for women, objects and files, made with a secret key: the same in every run, nobody else's to undo.

HMAC-SHA256 (RFC 2104) of a kind and a name. Without the key neither the name can be found by trying all of them, as it
can for a plain hash of a patient number, nor can two data sets be linked.
"""

import hashlib
import hmac
import os
import secrets
import stat
import uuid
from pathlib import Path

from exchange import ExchangeError

LONGEST_SHIFT_DAYS = 3650
"""Dates are moved back by 1 to so many days."""

_SHORTEST_KEY = 16
_LONGEST_KEY = 4096


class PseudonymKey:
    """The secret that pseudonyms are made with. It is neither printed nor stored.

    Args:
        secret: At least 16 bytes.
        subject: Where it came from, for the error.

    Raises:
        ExchangeError: It is too short to be secret.
    """

    def __init__(self, secret: bytes, subject: object = "key") -> None:
        if len(secret) < _SHORTEST_KEY:
            raise ExchangeError(
                subject,
                f"the key has {len(secret)} bytes, and at least {_SHORTEST_KEY} are needed",
                "make one with `openssl rand -hex 32`",
            )
        self._secret = secret

    def __repr__(self) -> str:
        return "PseudonymKey()"

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart, and says nothing of them: 16 hexadecimal digits."""
        return self._digest("fingerprint").hex()[:16]

    def woman(self, issuer: str, patient_id: str) -> str:
        """Return the pseudonym of a woman: `W` and 24 hexadecimal digits.

        Args:
            issuer: Who gave her the id (Issuer of Patient ID, or a data set); ids of different issuers are different
                women.
            patient_id: Her id there.
        """
        return "W" + self._digest("woman", issuer, patient_id).hex()[:24]

    def shift_days(self, issuer: str, patient_id: str) -> int:
        """Return by how many days a woman's dates are moved: a negative number, the same for all her studies."""
        digest = self._digest("days", issuer, patient_id)
        return -1 - int.from_bytes(digest[:8], "big") % LONGEST_SHIFT_DAYS

    def uid(self, uid: str) -> str:
        """Return the UID that takes a UID's place: valid, derived from a UUID (PS3.5 B.2), `2.25.` and its number."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def token(self, kind: str, name: str | bytes) -> str:
        """Return a name for something else, a file or an examination: 24 hexadecimal digits."""
        return self._digest(kind, name).hex()[:24]

    def _digest(self, *parts: str | bytes) -> bytes:
        # Each part goes in with its length: no two lists of parts give the same message.
        encoded = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
        message = b"mammoseek" + b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return hmac.new(self._secret, message, hashlib.sha256).digest()


def read_key(path: Path) -> PseudonymKey:
    """Read a key from a file that only its owner may read.

    Args:
        path: Its whole content is the key; line ends and blanks around it are not.

    Raises:
        ExchangeError: The file can't be read, others may read it, or the key is too short or long.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ExchangeError(path, "is no plain file", "name the file that holds the key")
        if state.st_mode & 0o077:
            raise ExchangeError(path, "others than its owner may read the key", f"run `chmod 600 {path}`")
        with path.open("rb") as file:
            content = file.read(_LONGEST_KEY + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExchangeError(path, f"the key can't be read ({reason})", "check the file's name") from error
    if len(content) > _LONGEST_KEY:
        raise ExchangeError(path, f"has more than {_LONGEST_KEY} bytes: it is no key", "name the file of the key")
    return PseudonymKey(content.strip(), path)


def key_from_environment(variable: str) -> PseudonymKey:
    """Take a key from an environment variable.

    Raises:
        ExchangeError: It is not set, or the key is too short.
    """
    content = os.environ.get(variable)
    if content is None:
        raise ExchangeError(variable, "this environment variable is not set", "set it, or name a key file")
    return PseudonymKey(os.fsencode(content).strip(), variable)


def write_new_key(path: Path) -> PseudonymKey:
    """Make a key of 256 random bits and write it into a new file that only its owner may read.

    Raises:
        ExchangeError: The file is there already, or can't be written: an old key is never replaced.
    """
    content = secrets.token_hex(32).encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise ExchangeError(path, "is there already, and a key is never replaced", "name a new file") from error
    except OSError as error:
        raise ExchangeError(path, f"can't be written ({error.strerror})", "choose another folder") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return PseudonymKey(content, path)
