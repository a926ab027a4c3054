"""What may be shown and kept of text that may hold a secret: addresses, answers of subscribers, error messages.

A guard, not a proof: it knows the places where secrets usually are. What is masked reads `***`.
"""

import re
from typing import Final

__all__ = ["MASK", "is_secret", "redacted"]

MASK: Final = "***"
# Names of headers, fields and log fields whose values are secrets.
_SECRET_NAME: Final = re.compile(
    r"token|secret|passw|authori[sz]ation|authenticat|credential|private|cookie|(api|access|auth)[-_]?key|signature|session|csrf"
    r"|xsrf|jwt|assertion",
    re.IGNORECASE,
)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]{1,300}@")
# The value of every parameter of a query: which of them is the secret cannot be told.
_PARAMETER: Final = re.compile(r"""([?&][^=\s&?#"'<>]{1,100}=)[^&\s#"'<>]+""")
_SCHEME: Final = re.compile(r"\b(bearer|basic|digest|negotiate)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)
# A JSON Web Token, wherever it stands: the three parts of one, the first being an object in base64.
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_FIELD: Final = re.compile(
    r"""((?:token|secret|passw(?:or)?d|authorization|cookie|api[-_]?key|signature)["']?\s*[:=]\s*["']?)(?!\s)[^\s"',;&}\]]+""",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether the name says that its value is a secret."""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str, most: int = 4096) -> str:
    """`text` without credentials in URLs, the values of query parameters, and what is named as a secret; `most` characters of it.

    It is cut after masking: a secret that the cut would fall into would not be known for one. Of a very long text no more than
    twice that is looked at, since texts come from outside."""
    return _masked(text[: 2 * most])[:most]


def _masked(text: str) -> str:
    if "eyJ" in text:
        text = _JWT.sub(MASK, text)
    if "://" in text:
        text = _USERINFO.sub(MASK + "@", text)
    if "=" in text or ":" in text:
        text = _PARAMETER.sub(r"\1" + MASK, text)
        text = _SCHEME.sub(r"\1 " + MASK, text)
        text = _FIELD.sub(r"\1" + MASK, text)
    elif " " in text:
        text = _SCHEME.sub(r"\1 " + MASK, text)
    return text
