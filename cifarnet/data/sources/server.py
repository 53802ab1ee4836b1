"""One server, asked for one file over HTTPS: its answer from a given byte on, or why it will not do."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cifarnet.core.errors import CifarnetError, Failed, Refused, printable

TIMEOUT = 20  # seconds without a byte
REDIRECTS = 5
BLOCK = 1 << 18  # bytes a read
PLAIN: tuple[str, ...] = ()  # hosts that are asked without encryption; the tests have one on this machine


@dataclass(frozen=True)
class Offer:
    """A file that a server has.

    Args:
        url: its address.
        size: exact size in bytes.
        path: where it goes; offers of the same bytes have the same.
        check: is given the whole file, and raises Refused when it is not what was published.
    """

    url: str
    size: int
    path: Path
    check: Callable[[BufferedRandom], None]

    @property
    def host(self) -> str:
        return printable(urlsplit(self.url).hostname or self.url)


class NotFrom(Exception):
    """A server did not do.

    Args:
        why: in words.
        kind: the error that this is for the user, if no other server does: Refused where nothing came at all.
        cut: it gave a part, and may give the rest when it is asked again.
        rate: bytes a second, of one that is too slow.
    """

    def __init__(
        self, why: str, kind: type[CifarnetError] = Failed, cut: bool = False, rate: float | None = None
    ) -> None:
        super().__init__(why)
        self.why, self.kind, self.cut, self.rate = why, kind, cut, rate


def connect(offer: Offer, start: int) -> http.client.HTTPResponse:
    """The answer of a server that has this file, from byte `start` on or, where it ignores that, from the first.

    Raises:
        NotFrom: it cannot be reached, leads elsewhere than to an encrypted address, or has something else.
    """
    check_address(offer.url)
    headers = {"User-Agent": "cifarnet", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(Redirects)
    try:
        answer = opener.open(urllib.request.Request(offer.url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        circle = error.reason.startswith(Redirects.inf_msg)
        text = "it redirects again and again" if circle else f"HTTP {error.code} {error.reason}"
        raise NotFrom(printable(text)[:200], Refused) from error
    except (http.client.HTTPException, OSError) as error:
        raise NotFrom(reason(error), Refused) from error
    try:
        check_answer(offer, answer, start)
    except BaseException:
        answer.close()
        raise
    return answer


def check_answer(offer: Offer, answer: http.client.HTTPResponse, start: int) -> None:
    """Raises NotFrom where an answer is not this file, by its headers and its first byte."""
    try:
        page = answer.headers.get_content_type() == "text/html" or answer.peek(64).lstrip()[:1] == b"<"
    except (http.client.HTTPException, OSError) as error:
        raise NotFrom(reason(error), Refused) from error
    if page:
        raise NotFrom("a web page came in place of the file; a proxy or a login page may be in the way")
    partial = answer.status == http.HTTPStatus.PARTIAL_CONTENT
    if partial and answer.headers.get("Content-Range") != f"bytes {start}-{offer.size - 1}/{offer.size}":
        raise NotFrom(f"has another file: not bytes {start:,} to {offer.size:,}")
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != offer.size - (start if partial else 0):
        raise NotFrom(f"has another file: {int(length):,} bytes, not {offer.size:,}")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few, and only to where the address itself might lead."""

    max_redirections = REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(url: str) -> None:
    """Raises NotFrom where an address is not encrypted."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in PLAIN):
        raise NotFrom(f"leads to {printable(url)[:100]}, which is not encrypted", Refused)


def reason(error: BaseException) -> str:
    """The reason why a connection failed, in a few words."""
    inner = getattr(error, "reason", None) or error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return printable(" ".join(str(text).split()))[:200]


def read_block(answer: http.client.HTTPResponse) -> bytes:
    """The bytes of an answer that have come, at least one; none at its end. Raises NotFrom where the connection breaks."""
    try:
        return answer.read1(BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise NotFrom(f"the connection broke ({reason(error)})", cut=True) from error
