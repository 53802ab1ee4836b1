"""One plain sentence: is the norm of this model's features a quality?"""

from collections.abc import Mapping
from typing import Any

from cifarnet.analysis.quality.degraded import WEAK
from cifarnet.core.percent import percent

SAID = {
    "yes": "is a quality",
    "in part": "is a quality in part only",
    "no": "is no quality",
    "unknown": "cannot be judged",
}


def judge(document: Mapping[str, Any], score: str = "norm") -> dict[str, str]:
    """`is_quality` (yes, in part, no, unknown) and the `sentence` that says why.

    yes: leaving out what has the least of it lowers the errors more than chance does, and it falls with each degradation that was
    measured (rho at -0.1 or below); no: none of these; in part: some.

    Args:
        document: `against_chance` of each of `scores`, `fnmr`, and of each of `degradations` the scores' rho.
    """
    errors = document["scores"][score]["against_chance"]
    rhos = {name: one["scores"][score]["rho"] or 0.0 for name, one in document["degradations"].items()}
    falls = [name for name, rho in rhos.items() if rho <= -WEAK]
    answers = [errors == "better"] * (errors != "unknown") + [name in falls for name in rhos]
    verdict = "unknown" if not answers else "yes" if all(answers) else "in part" if any(answers) else "no"
    reasons = [of_errors(document, score, errors), *of_degradations(rhos)]
    return {
        "is_quality": verdict,
        "sentence": f"On these images the {score} of the model's features {SAID[verdict]}: {'; '.join(reasons)}.",
    }


def of_errors(document: Mapping[str, Any], score: str, errors: str) -> str:
    """The change of the errors as the pairs of least quality are left out, in words."""
    start = document["fnmr"]
    if errors == "unknown":
        which = "no" if start == 0 else "every"
        return f"{which} genuine pair is rejected at this threshold, so the errors say nothing; they may at another false match rate"
    after = document["scores"][score]["fnmr_after_discard"]
    than = {"better": "beyond chance", "as chance": "within chance", "worse": "worse than chance"}
    moved = f"takes FNMR from {percent(start)} to {percent(after)}"
    return f"leaving out the fifth of the genuine pairs with the least {score} {moved}, {than[errors]}"


def of_degradations(rhos: Mapping[str, float]) -> list[str]:
    """The way of the score as images get worse: one clause, or none without degradations."""
    kinds: dict[str, list[str]] = {}
    for name, rho in rhos.items():
        does = "falls with" if rho <= -WEAK else "rises with" if rho >= WEAK else "does not follow"
        kinds.setdefault(does, []).append(f"{name} (ρ = {signed(rho)})")
    said = [
        f"{does} {' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}"
        for does, names in kinds.items()
    ]
    return [f"it {', '.join(said)}"] if said else []


def signed(rho: float) -> str:
    """A correlation with its sign, two decimals."""
    return f"{rho:+.2f}".replace("-", "−") if round(rho, 2) else "0.00"
