"""How it is said of how many views of each image scores are (`tta`)."""

from typing import Any


def views_in_words(views: Any) -> str:
    """ "six views of each image", for what a summary or an epoch's record keeps as `views`.

    Where nothing is kept it was two or six, by the version that measured: "several".
    """
    return f"{'six' if views == 6 else 'several'} views of each image"
