"""Shares as they are printed: what is not all is never 100%, what is not none never 0%."""

ROUNDING = 1e-12  # of sums and quotients: nearer than that a share is all, or none


def percent(value: float | None, places: int = 2, unit: str = "%") -> str:
    """0.8765 -> 87.65%; what is not defined is a dash. Not all is >99.99%, not none <0.01%, however near."""
    if value is None:
        return "–"
    text, least = f"{100 * value:.{places}f}", 10.0**-places
    if text == f"{100:.{places}f}" and value < 1 - ROUNDING:
        text = f">{100 - least:.{places}f}"
    elif text == f"{0:.{places}f}" and value > ROUNDING:
        text = f"<{least:.{places}f}"
    return text + unit


def share(value: float | None) -> str:
    """0.00987 -> 0.987%, without rounding small rates away; what is not all is >99.9%, what is not defined a dash."""
    if value is None:
        return "–"
    text = f"{100 * value:.3g}"
    return ">99.9%" if text == "100" and value < 1 - ROUNDING else f"{text}%"
