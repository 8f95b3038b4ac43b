"""Make `seqeval.json`: scores of seqeval for random rows of tags, in each of its modes.

    python tests/golden/make_seqeval.py

Needs seqeval, which the tests do not: they read the file, and run `scores` again where seqeval is
installed.
"""

import json
import warnings
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("seqeval.json")
# The prefixes of each scheme; None is seqeval's default mode, whatever prefixes there are.
SCHEMES = {"None": "BIES", "BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}
AVERAGES = ("micro", "macro", "weighted", "None")
SCORES = ("f1", "precision", "recall")


def tags(scheme: str) -> list[str]:
    return ["O"] + [f"{prefix}-{kind}" for kind in "XY" for prefix in SCHEMES[scheme]]


def rows(scheme: str, seed: int, batch: int = 100, time: int = 8) -> tuple[np.ndarray, ...]:
    """Predicted and true ids, `[batch, time]`, which often agree, and a mask with holes."""
    draw, size = np.random.default_rng(seed), len(tags(scheme))
    predictions, others = draw.integers(0, size, (2, batch, time))
    targets = np.where(draw.random((batch, time)) < 0.8, predictions, others)
    mask = draw.random((batch, time)) < 0.7
    mask[:, 0] |= ~mask.any(axis=1)
    return predictions, mask, targets


def scores(scheme: str, predictions: np.ndarray, mask: np.ndarray, targets: np.ndarray) -> dict:
    """What seqeval gives for the real steps."""
    import seqeval.metrics
    import seqeval.scheme

    names = tags(scheme)
    said, true = (
        [[names[i] for i in row[real]] for row, real in zip(ids, mask, strict=True)]
        for ids in (predictions, targets)
    )
    options = {"zero_division": 0}
    if scheme != "None":
        kind = {"BIO": "IOB2", "BIOES": "IOBES"}.get(scheme, scheme)
        options |= {"mode": "strict", "scheme": getattr(seqeval.scheme, kind)}
    found = {}
    for average in AVERAGES:
        for name in SCORES:
            score = getattr(seqeval.metrics, f"{name}_score")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                y = score(true, said, average=None if average == "None" else average, **options)
            found[f"{average} {name}"] = np.round(y, 8).tolist()
    return found


if __name__ == "__main__":
    table = {scheme: scores(scheme, *rows(scheme, seed=0)) for scheme in SCHEMES}
    PATH.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
