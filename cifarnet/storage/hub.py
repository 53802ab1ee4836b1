"""Models on the Hugging Face hub: one safetensors file and its card. Nothing else is fetched, a pickle least of all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Failed, Refused, printable

SCHEME, FILE, CARD = "hf://", "model.safetensors", "README.md"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def fetch(address: str) -> Path:
    """The file of `hf://owner/name` (its model.safetensors) or `hf://owner/name/file.safetensors`, kept in the hub's cache.

    Raises:
        Refused: no such address, another kind of file, huggingface_hub is not installed. Failed: it cannot be fetched.
    """
    owner, _, rest = address.removeprefix(SCHEME).partition("/")
    name, _, file = rest.partition("/")
    file = file or FILE
    if not file.endswith(".safetensors"):
        why = "is no safetensors file, and others may run code when loaded"
        raise Refused(printable(address), why, f"name one, as in {SCHEME}owner/name/{FILE}")
    repository = checked_name(f"{owner}/{name}")
    hub = library()
    with told(printable(address)):
        return Path(hub.hf_hub_download(repository, file, endpoint=endpoint()))


def push(repository: str, weights: bytes, card: bytes) -> str:
    """Puts a model and its card into a repository, which is made if it is not there (private); returns the commit's address.

    Raises:
        Refused: no name of a repository, huggingface_hub is not installed. Failed: the hub does not take it.
    """
    checked_name(repository)
    hub = library()
    api = hub.HfApi(endpoint=endpoint(), library_name="cifarnet")
    with told(repository):
        api.create_repo(repository, private=True, exist_ok=True)
        parts = [hub.CommitOperationAdd(name, data) for name, data in ((FILE, weights), (CARD, card))]
        return str(api.create_commit(repository, parts, commit_message="A model of cifarnet").commit_url)


def checked_name(repository: str) -> str:
    """The name, if it is one of a repository. Raises Refused."""
    if not NAME.fullmatch(repository):
        raise Refused(printable(repository) or "REPO", "is no name of a repository", "write it as owner/name")
    return repository


def endpoint() -> str | None:
    """The hub's address where it is another one."""
    return os.environ.get("HF_ENDPOINT")


def library() -> Any:
    """The package huggingface_hub. Raises Refused where it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        fix = 'pip install "cifarnet[hub]"'
        raise Refused("the hub", "the huggingface_hub package is not installed", fix) from error
    return huggingface_hub


@contextmanager
def told(what: str) -> Iterator[None]:
    """An error of the hub or of the network as one line."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        known = {401: "log in with hf auth login", 403: "log in with hf auth login", 404: "see that the name is right"}
        why = f"the hub answers {status} ({first_line(error.server_message or error)})"
        raise Failed(what, why, known.get(status, "try again later")) from error
    except Exception as error:  # of the network, in the form of whatever library huggingface_hub uses for it
        raise Failed(
            what, f"the hub cannot be reached ({first_line(error)})", "see that the network is there"
        ) from error


def first_line(error: object) -> str:
    """The first line of a message, fit for a terminal."""
    return printable(str(error).strip().partition("\n")[0])[:200]
