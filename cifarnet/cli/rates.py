"""The rates of --far and --fpir: numbers in a list with commas."""

from cifarnet.core.errors import Refused, printable


def parse_rates(option: str, text: str | None, example: str, one_too: bool = False) -> list[float] | None:
    """`1e-1,0.01` as numbers above 0 and below 1; None stays.

    Args:
        option: its name, for messages; `example`: some rates as they may stand there.
        one_too: 1 is a rate that can be asked for.

    Raises:
        Refused: something else stands there, or no rate.
    """
    if text is None:
        return None
    rates = []
    for word in text.split(","):
        try:
            rate = float(word)
        except ValueError:
            why = f"'{printable(word.strip())}' is no number"
            raise Refused(option, why, f"for example {option} {example}") from None
        if not (0 < rate < 1 or (one_too and rate == 1)):
            limit = "to 1" if one_too else "below 1"
            raise Refused(option, f"{rate:g} is no rate", f"give numbers above 0, {limit}")
        rates.append(rate)
    return rates
