"""The login page: whole in one answer, since nothing else answers before the login."""

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path

from viewer.replies import CONTENT_SECURITY_POLICY

STATIC = Path(__file__).resolve().parent / "static"
"""Folder of the page's files."""

_STYLE = re.compile(r'<link\b[^>]*\brel="stylesheet"[^>]*\bhref="/?(?:static/)?([\w./-]+)"[^>]*>')
_SCRIPT = re.compile(r'<script\b([^>]*)\bsrc="/?(?:static/)?([\w./-]+)"([^>]*)>\s*</script>')


@dataclass(frozen=True)
class LoginPage:
    """The page, and the policy under which a browser runs it.

    Attributes:
        body: The page.
        policy: Its content security policy: scripts and styles of exactly these digests.
    """

    body: bytes
    policy: str

    @classmethod
    def read(cls, folder: Path = STATIC) -> "LoginPage":
        """Put `login.html` together with the style sheets and scripts that it names; these can't name further ones."""
        text = (folder / "login.html").read_text("utf-8")
        styles: list[str] = []
        scripts: list[str] = []

        def style(found: re.Match[str]) -> str:
            content = (folder / found[1]).read_text("utf-8")
            styles.append(_source(content))
            return f"<style>{content}</style>"

        def script(found: re.Match[str]) -> str:
            content = (folder / found[2]).read_text("utf-8")
            scripts.append(_source(content))
            return f"<script{html.unescape(found[1])}{found[3]}>{content}</script>"

        text = _SCRIPT.sub(script, _STYLE.sub(style, text))
        policy = CONTENT_SECURITY_POLICY
        for name, sources in (("script-src", scripts), ("style-src", styles)):
            policy = policy.replace(f"{name} 'self'", f"{name} {' '.join(sources) or chr(39) + 'none' + chr(39)}")
        return cls(text.encode(), policy)


def _source(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
