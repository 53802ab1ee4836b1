"""`cifarnet push`: a trained model and its card -> a repository of the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.cli.common import messages, results
from cifarnet.core.errors import Refused


def push(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or checkpoint.", show_default=False)],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub.", show_default=False)],
) -> None:
    """Put a model and its card on the Hugging Face hub: one safetensors file, in a repository that is private at first.

    Log in before with `hf auth login`. In Python cifarnet.load("hf://owner/name") takes it from there.

    Examples:
        cifarnet push runs/latest owner/name
    """
    from cifarnet.analysis.card.facts import facts_of
    from cifarnet.analysis.card.text import card
    from cifarnet.core.plain_file import read_bytes
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint
    from cifarnet.storage.hub import checked_name
    from cifarnet.storage.hub import push as put
    from cifarnet.storage.sharded_file import INDEX

    checked_name(repo)
    path = default_checkpoint(model)
    if path.name.endswith(INDEX):
        raise Refused(str(path), "is a set of files, and one is pushed", "train without --head-parallel")
    _, info = load_model(path, of_features=True)  # a file that is broken goes nowhere
    text = card(facts_of(path, info)).encode()
    with messages().status(f"pushing to {repo}"):
        address = put(repo, read_bytes(path, ceiling=path.stat().st_size), text)
    results().say(address, soft_wrap=True)
