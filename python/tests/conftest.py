import json
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests/golden/data"
CARDS = ROOT / "models/tiny-cards"


def read_lines(name):
    return [json.loads(line) for line in (GOLDENS / name).read_text().splitlines() if line]


def within(values, summary, tolerance=1e-5):
    """Whether an array lies within `tolerance` of the largest value of the recorded summary."""
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(-1)
    absmax = summary["absmax"]
    if flat.size != int(np.prod(summary["shape"])):
        return False
    rows = values.reshape(-1, values.shape[-1])
    worst = max(
        abs(np.abs(flat).max() - absmax),
        np.abs(rows[0][: len(summary["first"])] - summary["first"]).max(),
        np.abs(rows[-1][: len(summary["last"])] - summary["last"]).max(),
        np.abs(flat[summary["at"]] - summary["values"]).max(),
    )
    return worst <= tolerance * max(1.0, absmax)


@pytest.fixture(scope="session")
def cards():
    return CARDS


@pytest.fixture(scope="session")
def engine(cards):
    import idefics

    return idefics.Engine(cards, dtype="float32")


def ask(image, question, **options):
    import idefics

    parts = [{"type": "image", "image": CARDS / "samples" / image}] if image else []
    return idefics.Request([{"role": "user", "content": parts + [{"type": "text", "text": question}]}], **options)
