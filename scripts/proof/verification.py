#!/usr/bin/env python3
"""Three claims about `cifarnet verify`: all pairs of 10,000 images in seconds, resamples in seconds, intervals that cover.

    python scripts/proof/verification.py [--only pairs|resamples|hard|easy|rare|rare-300] [--trials 1000] [--out docs/results/verification.json]

pairs: the scores of all 49,995,000 pairs of 10,000 images of 10 classes, and every rate of them; the best of five runs.
resamples: 1,000 resamples of these, images drawn within the 10 identities; the best of three runs.
hard, easy, rare, rare-300: how often a 95% interval holds the true value; of the last two errors are rare. The truth is known
since the data are made: each identity has its own centre and its own spread, so that the pairs of an identity share their luck.
Beside what is printed, on the same data: the percentiles of the same resamples alone, and other ways of drawing.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.verification.bootstrap import interval, resampled
from cifarnet.analysis.verification.measure import checked, verification
from cifarnet.analysis.verification.pairs import AllPairs, all_pairs
from cifarnet.analysis.verification.rates import at_far, equal_error
from cifarnet.analysis.verification.weights import draw

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
CENTRE, WIDTH = 24, 0.35  # of the made data: dimensions, and how much the spreads of the identities differ
SETTINGS = {  # identities, images of each, and the usual spread
    "hard": (100, 3, 1.0),
    "easy": (120, 4, 0.55),
    "rare": (40, 2, 0.42),
    "rare-300": (300, 2, 0.42),
}
RESAMPLES, FAR = 400, 0.01
FEW = 100  # trials of the ways that are far off: these show it


def made_images(count: int, identities: int, width: int, pull: float) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [count, width] that lie around the centres of so many identities, and their labels."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(identities), count // identities)
    centres = generator.normal(size=(identities, width))
    return (pull * centres[labels] + generator.normal(size=(count, width))).astype(np.float32), labels


def time_of(repeats: int, bootstrap: int) -> dict[str, Any]:
    """Seconds of `verification` on 10,000 made images, and the peak of memory in bytes."""
    embeddings, labels = made_images(10_000, 10, 512, 0.25)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = verification(embeddings, labels, FARS, bootstrap)
        seconds.append(round(time.perf_counter() - start, 2))
    document = found.to_dict()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pairs = document["genuine_pairs"] + document["impostor_pairs"]
    return {"pairs": pairs, "resamples": bootstrap, "seconds": seconds, "best": min(seconds), "peak_bytes": peak}


def draw_identities(generator: np.random.Generator, identities: int, each: int, spread: float) -> np.ndarray:
    """Unit embeddings [identities, each, CENTRE]: identities of their own centre and their own spread."""
    centres = generator.normal(size=(identities, 1, CENTRE))
    spreads = spread * np.exp(WIDTH * generator.normal(size=(identities, 1, 1)))
    vectors = centres + spreads * generator.normal(size=(identities, each, CENTRE))
    return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


def truth(spread: float, pairs: int = 4_000_000) -> tuple[float, float]:
    """TAR@FAR and EER of the made data: pairs of fresh identities, which are independent of each other."""
    generator = np.random.default_rng(1)
    genuine, impostor = [], []
    for _ in range(pairs // 100_000):
        some = draw_identities(generator, 100_000, 2, spread)
        genuine.append(np.einsum("nd,nd->n", some[:, 0], some[:, 1]))
        impostor.append(np.einsum("nd,nd->n", some[:-1, 0], some[1:, 1]))
    sorted_scores = np.sort(np.concatenate(genuine)), np.sort(np.concatenate(impostor))
    return at_far(*sorted_scores, FAR).tar, equal_error(*sorted_scores)[0]


def pair_bootstrap(pairs: AllPairs, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """TAR@FAR and EER [R, 2] of resamples that draw pairs as if these were independent."""
    rows = []
    for _ in range(resamples):
        both = (np.sort(generator.choice(scores, len(scores))) for scores in (pairs.genuine, pairs.impostor))
        genuine, impostor = both
        rows.append((at_far(genuine, impostor, FAR).tar, equal_error(genuine, impostor)[0]))
    return np.array(rows)


def trial(
    number: int, ways: tuple[str, ...], identities: int, each: int, spread: float
) -> dict[str, list[list[float]]]:
    """The intervals of TAR@FAR and EER of one made set, by each way of drawing."""
    generator = np.random.default_rng([2, number])
    embeddings = draw_identities(generator, identities, each, spread).reshape(-1, CENTRE)
    labels = np.repeat(np.arange(identities), each)
    pairs = all_pairs(*checked(embeddings, labels))
    genuine, impostor = np.sort(pairs.genuine), np.sort(pairs.impostor)
    found = {}
    for way in ways:
        if way == "as printed":
            printed = verification(embeddings, labels, FAR, RESAMPLES, number).intervals
            assert printed is not None
            found[way] = [list(one or ()) for one in (*printed.tar, printed.eer)]
            continue
        if way == "pairs":
            values = pair_bootstrap(pairs, 200, generator)
        else:
            images = way == "identities and images"
            groups = draw(pairs.labels, RESAMPLES, number, identities=True, images=images)
            values = np.concatenate([resampled(pairs, genuine, impostor, [FAR], draws) for draws in groups])
        found[way] = [list(interval(column, 0 if way == "pairs" else identities) or ()) for column in values.T]
    return found


def coverage(trials: int, setting: str) -> Iterator[dict[str, Any]]:
    """The share of trials whose interval holds the true value, by each way of drawing; after every 50 trials."""
    identities, each, spread = SETTINGS[setting]
    ways = ("as printed", "identities", "identities and images", "pairs")
    true = truth(spread)
    about: dict[str, Any] = {"identities": identities, "images_each": each, "resamples": RESAMPLES, "far": FAR}
    about |= {"true_tar": round(true[0], 4), "true_eer": round(true[1], 4)}
    held, done = {way: np.zeros((2, 2)) for way in ways}, dict.fromkeys(ways, 0)
    for number in range(trials):
        for way, intervals in trial(number, ways if number < FEW else ways[:2], identities, each, spread).items():
            done[way] += 1
            held[way] += [
                (low <= value <= high, high - low) for (low, high), value in zip(intervals, true, strict=True)
            ]
        if number % 50 == 49 or number == trials - 1:
            means = {way: (held[way] / done[way]).round(4).tolist() for way in ways}
            rows = {
                way: {"trials": done[way], "tar_covered": tar[0], "eer_covered": eer[0], "widths": [tar[1], eer[1]]}
                for way, (tar, eer) in means.items()
            }
            yield about | {"ways": rows}


def main() -> None:
    """Runs what is asked for and adds it to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("pairs", "resamples", *SETTINGS))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/verification.json"))
    options = parser.parse_args()
    parts: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "pairs": lambda: [time_of(5, 0)],
        "resamples": lambda: [time_of(3, 1000)],
    }
    parts |= {name: partial(coverage, options.trials, name) for name in SETTINGS}
    for name, measure in parts.items():
        for found in measure() if options.only in (None, name) else ():
            document = json.loads(options.out.read_text()) if options.out.exists() else {}
            document |= {"cores": os.cpu_count(), name: found}
            options.out.write_text(json.dumps(document, indent=2) + "\n")
            print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
