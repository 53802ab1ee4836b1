"""Downloads from servers on this machine that are fast, slow, cut off, lie or send something else."""

import dataclasses
import hashlib
import http.server
import io
import os
import random
import signal
import tarfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import status_of

from cifarnet.core.errors import Failed, Refused
from cifarnet.data import load
from cifarnet.data.sources import download, fetch_archive, server
from cifarnet.data.sources.archive import Archive
from cifarnet.data.sources.cifar import SETS
from cifarnet.data.sources.mirrors import MIRRORS
from cifarnet.data.sources.server import Offer

BODY = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
HTML = b"<!DOCTYPE html><p>Sign in"
HALF = len(BODY) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Does what the address says: /fast, /slow, /cut, ... Each request is noted as (name, first byte that is asked for)."""

    body, asked, rates = BODY, [], []  # of a server's own; rates: bytes a second of /slow, one after the other

    def do_GET(self) -> None:
        name = self.path.split("/")[1]
        self.start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.asked.append((name, self.start))
        getattr(self, name.replace("-", "_"))()

    def answer(self, body: bytes, code: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for key, value in {"Content_Type": "application/x-gzip", **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def rest(self, body: bytes, end: int | None = None) -> None:
        """The bytes that are asked for, or only those up to `end` of them, under the headers of all."""
        if not self.start:
            return self.answer(body[:end], length=len(body))
        span = f"bytes {self.start}-{len(body) - 1}/{len(body)}"
        return self.answer(body[self.start : end], 206, len(body) - self.start, Content_Range=span)

    def fast(self) -> None:
        self.rest(self.body)

    def slow(self) -> None:
        rate, step = self.rates.pop(0) if self.rates else 50_000, 0.02
        self.rest(self.body, self.start)
        for at in range(self.start, len(self.body), int(rate * step)):
            self.wfile.write(self.body[at : at + int(rate * step)])
            time.sleep(step)

    def cut(self) -> None:
        self.rest(self.body, min(self.start + 60_000, len(self.body)))

    def cut_at_half(self) -> None:
        self.rest(self.body, max(len(self.body) // 2, self.start))

    def stalled(self) -> None:
        self.rest(self.body, HALF)
        time.sleep(0.5)

    def too_long_by_its_header(self) -> None:
        self.answer(self.body, length=len(self.body) + 1)

    def too_long(self) -> None:
        self.answer(self.body + b"x", length=-1)

    def without_length(self) -> None:
        self.answer(self.body[:HALF], length=-1)

    def page(self) -> None:
        self.answer(HTML, Content_Type="text/html; charset=utf-8")

    def page_by_another_name(self) -> None:
        self.answer(b"\n " + HTML)

    def round_and_round(self) -> None:
        self.answer(b"", 302, Location=f"/round-and-round/{random.random()}")

    def moved(self) -> None:
        self.answer(b"", 302, Location="/fast")

    def moved_in_the_open(self) -> None:
        self.answer(b"", 302, Location="http://example.com/fast")

    def moved_to_a_file(self) -> None:
        self.answer(b"", 302, Location="file:///etc/passwd")

    def ignores_range(self) -> None:
        self.answer(self.body)

    def another_range(self) -> None:
        self.answer(self.body[1:], 206, Content_Range=f"bytes 1-{len(self.body) - 1}/{len(self.body)}")

    def wrong(self) -> None:
        self.rest(OTHER[: len(self.body)].ljust(len(self.body)))

    def missing(self) -> None:
        self.answer(b"no", 404)

    def busy(self) -> None:
        self.answer(b"no", 503)

    def log_message(self, *_) -> None:
        pass


class Server:
    """One on 127.0.0.1, its addresses, and what it was asked."""

    def __init__(self, body: bytes) -> None:
        self.asked: list[tuple[str, int]] = []
        self.rates: list[int] = []
        handler = type("OfThisServer", (Handler,), {"body": body, "asked": self.asked, "rates": self.rates})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, name: str, file: str = "file.bin", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.http.server_port}/{name}/{file}"


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """No proxy, plain HTTP to this machine, and limits that are met within a second."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(server, "PLAIN", ("127.0.0.1", "localhost"))
    monkeypatch.setattr(server, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "WINDOW", 0.2)
    monkeypatch.setattr(download, "SLOW", 200_000.0)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(body: bytes = BODY) -> Server:
        servers.append(Server(body))
        return servers[-1]

    yield start
    for one in servers:
        one.http.shutdown()
        one.http.server_close()


def published(file) -> None:
    if file.read() != BODY:
        raise Refused("file.bin", "its MD5 is another")


def offers(folder: Path, *urls: str) -> list[Offer]:
    return [Offer(url, len(BODY), folder / "file.bin", published) for url in urls]


def left(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


# one server

NO_USE = [
    # what the server does, the error, what it says, what is kept of the file
    ("cut-at-half", Failed, "cut off at 100,000 of 200,000 bytes", HALF),
    ("stalled", Failed, "timed out", HALF),
    ("without-length", Failed, "cut off at 100,000 of 200,000 bytes", HALF),
    ("too-long-by-its-header", Failed, "has another file: 200,001 bytes, not 200,000", 0),
    ("too-long", Failed, "more came than its 200,000 bytes", 0),
    ("page", Failed, "a web page came in place of the file", 0),
    ("page-by-another-name", Failed, "a web page came in place of the file", 0),
    ("round-and-round", Refused, "it redirects again and again", 0),
    ("moved-in-the-open", Refused, "leads to http://example.com/fast, which is not encrypted", 0),
    ("moved-to-a-file", Refused, "HTTP 302 Found - Redirection to url 'file:///etc/passwd' is not allowed", 0),
    ("another-range", Failed, "has another file: not bytes 0 to 200,000", 0),
    ("wrong", Refused, "its MD5 is another", 0),
    ("missing", Refused, "HTTP 404 Not Found", 0),
    ("busy", Refused, "HTTP 503 Service Unavailable", 0),
]


def test_what_a_server_does_wrong_is_told_and_the_next_try_goes_on(serve, tmp_path):
    for name, kind, text, kept in NO_USE:
        one, folder = serve(), tmp_path / name
        folder.mkdir()
        with pytest.raises((Refused, Failed)) as caught:
            download.download(offers(folder, one.url(name)))
        told = (name, str(caught.value))
        assert type(caught.value) is kind and f"127.0.0.1: {text}" in str(caught.value), told
        assert left(folder) == ({"file.bin.part": kept} if kept else {}), (name, left(folder))
        assert (f"goes on from the {kept:,} bytes that are kept" in str(caught.value)) == bool(kept), told
        one.asked.clear()
        download.download(offers(folder, one.url("fast")))
        assert one.asked == [("fast", kept)] and left(folder) == {"file.bin": len(BODY)}
        assert (folder / "file.bin").read_bytes() == BODY


def test_a_server_that_is_cut_off_again_and_again_is_asked_for_the_rest(serve, tmp_path):
    one, seen = serve(), []
    download.download(offers(tmp_path, one.url("cut")), lambda *counts: seen.append(counts))
    assert one.asked == [("cut", 0), ("cut", 60_000), ("cut", 120_000), ("cut", 180_000)]
    assert seen == sorted(seen) and seen[-1] == (len(BODY), len(BODY)) and left(tmp_path) == {"file.bin": len(BODY)}


def test_a_kept_part_that_does_not_fit(serve, tmp_path):
    """A server that ignores the range, a part of other bytes, one that is whole, and one that is too long."""
    one, part = serve(), tmp_path / "file.bin.part"
    cases = [
        ("ignores-range", BODY[:HALF], [HALF]),
        ("fast", OTHER[:HALF], [HALF, 0]),  # only the whole can be checked
        ("fast", BODY, []),
        ("fast", BODY + b"x", [0]),
        ("moved", BODY[:HALF], [HALF, HALF]),
    ]
    for name, kept, asked in cases:
        one.asked.clear()
        part.write_bytes(kept)
        download.download(offers(tmp_path, one.url(name)))
        assert [start for _, start in one.asked] == asked, name
        assert (tmp_path / "file.bin").read_bytes() == BODY and left(tmp_path) == {"file.bin": len(BODY)}
    for kept, text in ((BODY[:10], "has another file: not bytes 10 to 200,000"), (OTHER, "its MD5 is another")):
        part.write_bytes(kept)
        with pytest.raises((Refused, Failed), match=text):
            download.download(offers(tmp_path, one.url("another-range" if kept == BODY[:10] else "wrong")))
    (tmp_path / "elsewhere").write_bytes(b"mine")
    part.unlink(missing_ok=True)
    part.symlink_to("elsewhere")
    with pytest.raises(Failed, match=r"could not be saved .*it is a link"):
        download.download(offers(tmp_path, one.url("fast")))
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_stopped_by_the_user_it_goes_on_the_next_time(serve, tmp_path):
    def stop(done: int, _: int) -> None:
        if done >= HALF:
            raise KeyboardInterrupt

    one = serve()
    with pytest.raises(KeyboardInterrupt):
        download.download(offers(tmp_path, one.url("fast")), stop)
    kept = left(tmp_path)["file.bin.part"]
    assert kept >= HALF
    download.download(offers(tmp_path, one.url("fast")))
    assert [start for _, start in one.asked] == ([0] if kept == len(BODY) else [0, kept])


def test_only_encrypted_addresses(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PLAIN", ())
    for url in ("http://127.0.0.1:9/file.bin", "ftp://127.0.0.1/file.bin", "file:///etc/passwd"):
        with pytest.raises(Refused, match="which is not encrypted"):
            download.download(offers(tmp_path, url))
    assert all(url.startswith("https://") for pair in MIRRORS.items() for url in (pair[0], *pair[1]))


# several servers


def test_the_next_server_is_taken_and_one_line_says_so(serve, tmp_path):
    """What the first ones gave is kept where it is of the file."""
    one = serve()
    urls = [one.url("missing"), one.url("cut-at-half", host="localhost"), one.url("page"), one.url("fast")]
    with pytest.warns(UserWarning) as said:
        taken = download.download(offers(tmp_path, *urls))
    assert taken.url == urls[-1] and one.asked[-1] == ("fast", HALF)
    assert len({str(line.message) for line in said}) == len(said) <= 2  # the second answered as well, at first
    words = "; ".join(str(line.message) for line in said)
    for text in (
        "127.0.0.1 (HTTP 404 Not Found)",
        "localhost (cut off at 100,000",
        "(a web page came",
        "downloading from",
    ):
        assert text in words, words
    assert left(tmp_path) == {"file.bin": len(BODY)}


def test_a_slow_server_is_left_and_the_fastest_of_slow_ones_is_kept(serve, tmp_path):
    one = serve()
    with pytest.warns(UserWarning, match=r"not from 127.0.0.1 \(only \d+ kB/s\): downloading from localhost"):
        download.download(offers(tmp_path, one.url("slow"), one.url("fast", host="localhost")))
    (_, _), (name, start) = one.asked
    assert name == "fast" and 5_000 < start < 50_000  # goes on where the slow one was left
    one.asked.clear()
    one.rates[:] = [150_000, 20_000, 450_000]
    with pytest.warns(UserWarning) as said:
        taken = download.download(offers(tmp_path, one.url("slow"), one.url("slow", host="localhost")))
    assert taken.host == "127.0.0.1" and len(one.asked) == 3
    assert "not from 127.0.0.1 (only 1" in str(said[0].message) and "not from localhost (only" in str(said[1].message)


def test_the_only_server_is_kept_however_slow_and_its_time_is_told(serve, tmp_path, monkeypatch):
    one = serve()
    one.rates[:] = [190_000]
    said = r"127.0.0.1 gives (1\d\d|200) kB/s: about 1 min left; after Ctrl-C the next start goes on"
    with pytest.warns(UserWarning, match=said) as lines:
        download.download(offers(tmp_path, one.url("slow")))
    assert len(lines) == 1 and len(one.asked) == 1
    (tmp_path / "file.bin").unlink()
    monkeypatch.setattr(download, "LONGEST", 0.1)
    with warnings.catch_warnings(), pytest.raises(Failed, match="not done after 0 hours"):
        warnings.simplefilter("ignore")
        download.download(offers(tmp_path, one.url("slow")))


# CIFAR-10, small

FOLDER = "cifar-10-batches-bin"
FILES = {
    name: np.hstack([np.arange(4)[:, None] % 10, np.random.default_rng(i).integers(0, 256, (4, 3072))]).astype(np.uint8).tobytes()
    for i, name in enumerate(SETS["cifar10"].archive.files)
}  # fmt: skip


def pack() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


PACKED = pack()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "cifarnet"


@pytest.fixture
def small(monkeypatch) -> Callable[..., Archive]:
    """`small(url, *mirrors)` publishes a small archive in place of the official one."""

    def publish(url: str, *mirrors: str, data: bytes | None = None) -> Archive:
        data = PACKED if data is None else data
        md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
        made = Archive(url, len(data), md5, sha256, FOLDER, {name: len(content) for name, content in FILES.items()})
        monkeypatch.setitem(SETS, "cifar10", dataclasses.replace(SETS["cifar10"], archive=made))
        for official in list(MIRRORS):
            monkeypatch.delitem(MIRRORS, official)
        monkeypatch.setitem(MIRRORS, url, mirrors)
        return made

    return publish


BESIDE = {"download.lock", "exact"}  # what else is in the cache: the lock, and what is known of the published files


def files_in(cache: Path) -> list[str]:
    """The set's folder with its files, archives, and parts of them."""
    return sorted(path.name for path in cache.rglob("*") if path.relative_to(cache).parts[0] not in BESIDE)


def check_content(data) -> None:
    raw = np.frombuffer(FILES["test_batch.bin"], np.uint8).reshape(-1, 3073)
    assert data.test.labels.tolist() == raw[:, 0].tolist()
    assert np.array_equal(data.test.images, raw[:, 1:].reshape(-1, 3, 32, 32))


def test_a_mirror_is_asked_first_and_the_set_lies_unpacked_in_the_cache(small, serve, cache):
    one = serve(PACKED)
    small(one.url("busy", "x.tar.gz"), one.url("fast", "x.tar.gz"))
    seen: list[tuple[int, int]] = []
    check_content(load("cifar10", progress=lambda *counts: seen.append(counts)))
    assert one.asked == [("fast", 0)] and seen[-1] == (len(PACKED),) * 2 and seen == sorted(seen)
    assert files_in(cache) == sorted([FOLDER, *FILES])
    check_content(load("cifar10", download=False))
    assert len(one.asked) == 1


def test_the_official_address_is_the_last(small, serve, cache):
    one = serve(PACKED)
    small(one.url("fast", "x.tar.gz"), one.url("wrong", "x.tar.gz"), one.url("page", "x.tar.gz"))
    with pytest.warns(UserWarning, match=r"its MD5 is .*a web page"):
        check_content(load("cifar10"))
    assert [name for name, _ in one.asked] == ["wrong", "page", "fast"]
    assert files_in(cache) == sorted([FOLDER, *FILES])


def test_another_archive_of_the_same_set(small, serve, cache):
    """The mirrors of each archive are asked, and the official address of the last alone."""
    one = serve(PACKED)
    last = small(one.url("fast", "b.tar.gz"))
    first = dataclasses.replace(last, url=one.url("fast", "a.tar.gz"), folder="another", files={"x": 1})
    MIRRORS[first.url] = (one.url("cut-at-half", "a.tar.gz"),)
    try:
        with pytest.warns(UserWarning, match="cut off"):
            assert fetch_archive.fetch_archive([first, last], "CIFAR-10", [cache]) is last
    finally:
        del MIRRORS[first.url]
    assert files_in(cache) == sorted([FOLDER, *FILES])  # the other's part has gone too
    assert fetch_archive.fetch_archive([first, last], "CIFAR-10", [cache]) is last and len(one.asked) == 3


def test_a_failed_download_leaves_a_part_at_most(small, serve, cache):
    for name, kind, text in (
        ("cut-at-half", Failed, "cut off at"),
        ("page", Failed, "web page"),
        ("wrong", Refused, "MD5"),
    ):
        one = serve(PACKED)
        small(one.url(name, "cifar-10-binary.tar.gz"))
        with pytest.raises(kind, match=text) as caught:
            load("cifar10")
        assert str(caught.value).startswith(f"CIFAR-10: not in {cache}")
        assert "and the download failed" in str(caught.value)
        assert "curl -LO" in str(caught.value) and "`dataset=digits` needs no download" in str(caught.value)
        part = {"cut-at-half": ["cifar-10-binary.tar.gz.part"]}.get(name, [])
        assert files_in(cache) == part
        for left_over in part:
            (cache / left_over).unlink()


def test_no_network(small, cache):
    small("http://127.0.0.1:9/cifar-10-binary.tar.gz", "http://localhost:9/cifar-10-binary.tar.gz")  # nobody listens
    with warnings.catch_warnings(), pytest.raises(Refused, match=r"localhost, 127.0.0.1: Connection refused") as caught:
        warnings.simplefilter("error")
        load("cifar10")
    assert str(cache) in str(caught.value) and files_in(cache) == []


def test_orphans_of_killed_processes_are_swept(small, serve, cache):
    small(serve(PACKED).url("fast", "cifar-10-binary.tar.gz"))
    cache.mkdir(parents=True)
    old, young = cache / f".cifarnet-{0:016x}.tmp", cache / f".cifarnet-{1:016x}.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    load("cifar10")
    assert not old.exists() and young.exists()  # the young one may belong to a process at work


def test_killed_while_it_is_unpacked(small, serve, cache, monkeypatch):
    """The archive is whole by then: the next call reads it where it is, and removes what was unpacked of it."""
    small(serve(PACKED).url("fast", "cifar-10-binary.tar.gz"))
    monkeypatch.setattr(fetch_archive, "move_folder", lambda *places: os.kill(os.getpid(), signal.SIGKILL))
    assert status_of(lambda: load("cifar10")) == -signal.SIGKILL
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    small("http://127.0.0.1:9/cifar-10-binary.tar.gz")
    assert len(files_in(cache)) > 3
    check_content(load("cifar10", download=False))
    assert files_in(cache) == ["cifar-10-binary.tar.gz"]


def test_a_full_disk(small, serve, cache, monkeypatch):
    small(serve(PACKED).url("fast", "cifar-10-binary.tar.gz"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetch_archive.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Refused, match="0 MB are free there, and CIFAR-10 needs"):
        load("cifar10")


def test_two_threads_fetch_it_once(small, serve, cache):
    one = serve(PACKED)
    small(one.url("fast", "x.tar.gz"))
    threads = [threading.Thread(target=lambda: check_content(load("cifar10"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(one.asked) == 1 and files_in(cache) == sorted([FOLDER, *FILES])
