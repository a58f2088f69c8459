import json
import pathlib
import subprocess
import sys

from conftest import CARDS, ROOT

EXAMPLES = ROOT / "python/examples"
SURE = next(r for r in json.loads((CARDS / "samples/expected.json").read_text()) if r["smallest_margin"] > 0.5)


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ask_picture_and_own_sampler_answer_as_the_reference():
    for name in ("ask_picture.py", "own_sampler.py"):
        assert run(name, CARDS, CARDS / "samples" / SURE["image"], SURE["prompt"]).strip() == SURE["text"].strip()


def test_batch_captions():
    pictures = [CARDS / f"samples/0{i}.png" for i in (1, 2, 3)]
    lines = run("batch_captions.py", CARDS, *pictures).splitlines()
    assert [pathlib.Path(line.split(":")[0]) for line in lines] == pictures
    assert all(" The image shows " in line for line in lines)


def test_hidden_states():
    lines = run("hidden_states.py", CARDS, CARDS / "samples/01.png", "Pick up the circle.").splitlines()
    assert [line.split(":")[0] for line in lines] == ["layer 2", "layer 4"]


def test_the_comparison_compiles():
    source = (EXAMPLES / "compare_with_transformers.py").read_text()
    compile(source, "compare_with_transformers.py", "exec")
