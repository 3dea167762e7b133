"""The address of a gallery on Milvus, and texts within Milvus's language: both written so that nothing can slip in.

An address is `milvus://host:port/collection`, with a database before the collection where it is not the default one;
`milvus+tls://…` for an encrypted connection; or `milvus:///folder/file.db/collection` for the embedded milvus-lite
(`milvus:file.db/collection` where the file lies here). Who asks is said by the environment (`MILVUS_TOKEN`, or
`MILVUS_USER` and `MILVUS_PASSWORD`), never by the address, which stands in answers and messages.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from index import GalleryError

DEFAULT_PORT = 19_530

_ADDRESS = re.compile(r"(milvus(?:\+tls)?):(.*)", re.DOTALL)
_SERVER = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_SIDE_MARK = "__"  # stands in the names of the collections beside a gallery's own
_EXAMPLE = "write it as milvus://host:19530/collection or milvus:///folder/file.db/collection"


@dataclass(frozen=True)
class MilvusAddress:
    """Where a gallery lies on Milvus. Its text holds no secret.

    Attributes:
        collection: Name of the gallery's collection.
        file: The embedded milvus-lite's file; None for a server.
        host: The server.
        port: Its port.
        secure: Whether the connection is encrypted.
        database: The server's database; empty for the default one.
    """

    collection: str
    file: Path | None = None
    host: str = ""
    port: int = DEFAULT_PORT
    secure: bool = False
    database: str = ""

    def __str__(self) -> str:
        if self.file is not None:
            return f"milvus:{'//' if self.file.is_absolute() else ''}{self.file}/{self.collection}"
        place = "/".join(part for part in (self.database, self.collection) if part)
        return f"milvus{'+tls' if self.secure else ''}://{self.host}:{self.port}/{place}"

    @property
    def uri(self) -> str:
        """What pymilvus connects to."""
        if self.file is not None:
            return str(self.file)
        return f"http{'s' if self.secure else ''}://{self.host}:{self.port}"


def is_milvus_address(text: str) -> bool:
    """Return whether a gallery's name is meant as an address on Milvus, and not as a folder.

    >>> is_milvus_address("milvus://db.hospital:19530/findings"), is_milvus_address("/galleries/milvus")
    (True, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def parse_address(text: str) -> MilvusAddress:
    """Read the address of a gallery on Milvus.

    Raises:
        GalleryError: It can't be one, or it holds a password.

    >>> print(parse_address("milvus://localhost/findings"))
    milvus://localhost:19530/findings
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise GalleryError(repr(text[:200]), "is not the address of a gallery on Milvus", _EXAMPLE)
    scheme, rest = found.groups()
    if rest.startswith("//") and not rest.startswith("///"):
        return _parse_server(scheme == "milvus+tls", rest[2:])
    file, _, collection = rest.removeprefix("//").rpartition("/")
    if scheme != "milvus" or not file.endswith(".db") or "\0" in file:
        raise GalleryError(repr(text[:200]), "names no server and no file that ends in .db", _EXAMPLE)
    return MilvusAddress(_collection(collection), Path(file))


def _parse_server(secure: bool, text: str) -> MilvusAddress:
    server, _, place = text.partition("/")
    if "@" in text:
        # Not shown: what stands before the @ may be a password.
        raise GalleryError(
            "the address on Milvus",
            "holds a user or a password, and addresses are printed and stored",
            "leave them out, and set MILVUS_TOKEN, or MILVUS_USER and MILVUS_PASSWORD, in the environment",
        )
    found = _SERVER.fullmatch(server)
    if found is None or not 0 < int(found[2] or DEFAULT_PORT) < 65_536:
        raise GalleryError(repr(server[:200]), "is not a server's name with a port", _EXAMPLE)
    database, _, collection = place.rpartition("/")
    if database:
        _collection(database)
    return MilvusAddress(
        _collection(collection), None, found[1], int(found[2] or DEFAULT_PORT), secure, database=database
    )


def _collection(name: str) -> str:
    if _NAME.fullmatch(name) is None or _SIDE_MARK in name:
        raise GalleryError(
            repr(name[:200]),
            "can't be the name of a collection",
            f"name it by up to 128 letters, digits and single underscores, a letter first; {_EXAMPLE}",
        )
    return name


def side_collection(collection: str, part: str) -> str:
    """Return the name of a collection that a gallery keeps beside its own."""
    return f"{collection}{_SIDE_MARK}{part}"


def quote(text: str) -> str:
    r"""Return a text as a literal of Milvus's filter language: nothing in it can end the literal.

    Both Milvus and milvus-lite read the same few escapes; every other character stands for itself.

    >>> print(quote('say "no"\n'))
    "say \"no\"\n"
    """
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


def among(field: str, texts: Sequence[str], *, none: bool = False) -> str:
    """Return the condition that a field, which every row has, is one of some texts, or none of them."""
    return f"{field} {'not ' if none else ''}in [{', '.join(quote(text) for text in texts)}]"
