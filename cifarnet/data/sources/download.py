"""One file over HTTPS: to a temporary name, with a ceiling on its size, checked, then renamed."""

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from io import BufferedRandom
from pathlib import Path
from typing import IO

from cifarnet.core.errors import Failed
from cifarnet.data.request import ProgressCallback
from cifarnet.storage.atomic import replacing, sweep_temporaries

TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18  # bytes a read
STALE = 24 * 3600  # seconds after which a temporary file is an orphan of a killed process


def download(
    url: str, size: int, folder: Path, check: Callable[[BufferedRandom], None], progress: ProgressCallback | None = None
) -> Path:
    """Fetch `url` into `folder`; the file has its name only once it is whole, checked and on the disk.

    Args:
        url: its last part is the file's name.
        size: exact size in bytes.
        folder: a writable folder.
        check: is given the whole file, and raises when it is not what was published; it is then removed.
        progress: called with (bytes so far, bytes in all).

    Returns:
        the path of the file.

    Raises:
        ConnectionError: the server cannot be reached or refuses.
        Failed: cut short, too long, a web page in place of the file, or the disk is full.
    """
    path = folder / url.rsplit("/", 1)[1]
    try:
        sweep_temporaries(folder, older_than=STALE)
        with replacing(path) as file:
            fetch(url, size, file, progress)
            file.flush()
            file.seek(0)
            check(file)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise Failed(url, f"could not be saved in {folder} ({error.strerror})") from error
    return path


def fetch(url: str, size: int, file: IO[bytes], progress: ProgressCallback | None) -> None:
    """Copy the address to `file`, no more than the published size."""
    done = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            while block := answer.read(BLOCK):
                if answer.headers.get_content_type() == "text/html" or (done == 0 and block.lstrip()[:1] == b"<"):
                    raise Failed(
                        url, "a web page came in place of the file", "a proxy or a login page may be in the way"
                    )
                done += len(block)
                if done > size:
                    raise Failed(url, f"more came than its {size:,} bytes", "try again")
                file.write(block)
                if progress:
                    progress(done, size)
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from error
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise Failed(url, f"the download was cut short at {done:,} bytes ({error})", "try again") from error
    if done < size:
        raise Failed(url, f"the download ended at {done:,} of {size:,} bytes", "try again")
