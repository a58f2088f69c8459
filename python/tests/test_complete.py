"""What the public headers have, the module has: each field of the structs that a caller fills in or reads."""

import re

import idefics
import pytest
from conftest import CARDS, ROOT

HEADERS = {name: (ROOT / f"include/idefics/{name}.h").read_text() for name in ("engine", "sampling", "structured_output")}


def body(kind, name):
    for text in HEADERS.values():
        found = re.search(rf"^{kind} {name} {{\n(.*?)^}};", text, re.MULTILINE | re.DOTALL)
        if found:
            return re.sub(r"//[^\n]*", "", found.group(1))
    raise AssertionError(f"{kind} {name} is in no header")


def fields(struct):
    """The names of a struct's fields, functions and nested types left out."""
    text = re.sub(r"(enum class|struct) \w+ {.*?};", "", body("struct", struct), flags=re.DOTALL)
    text = re.sub(r"[^;{}]*\)( const)? {[^{}]*}", "", text)
    names = []
    for statement in text.split(";"):
        statement = re.sub(r"{[^{}]*}", "", statement).strip()
        declaration = re.sub(r"<[^<>]*(<[^<>]*(<[^<>]*>)?[^<>]*>)?[^<>]*>", "", statement)
        if not declaration or ("(" in declaration and "=" not in declaration.split("(")[0]):
            continue
        declaration = re.sub(r"=[^,]*", "", declaration)
        first, *others = declaration.split(",")
        names += [first.split()[-1], *(other.strip() for other in others)]
    return names


# A function that a thread of the engine calls, without Python's lock: for C++ alone.
ONLY_IN_CPP = {"picture_decoder"}


def test_the_headers_are_read():
    assert fields("EngineOptions")[:3] == ["dtype", "kv_cache_dtype", "num_threads"]
    assert len(fields("EngineOptions")) == 15
    assert {"waiting", "running", "since_step_ms", "finished_length"} <= set(fields("EngineStats"))
    assert "structured_output" in fields("Request") and "logit_bias" in fields("SamplingParams")


@pytest.mark.parametrize(
    "struct",
    ["EngineOptions", "Request", "SamplingParams", "StructuredOutput", "Usage", "Timings", "TokenInfo", "TokenLogprob"]
    + ["Choice", "Answer", "Event", "EngineStats"],
)
def test_every_field_is_there(struct):
    wanted = set(fields(struct)) - ONLY_IN_CPP
    missing = [name for name in wanted if not hasattr(getattr(idefics, struct), name)]
    assert not missing


@pytest.mark.parametrize("struct", ["Request", "SamplingParams"])
def test_every_field_is_an_argument(struct):
    signature = getattr(idefics, struct).__init__.__doc__.splitlines()[0]
    missing = [name for name in fields(struct) if not re.search(rf"\b{name}\b", signature)]
    assert not missing


@pytest.mark.parametrize("enum", ["ComputeType", "KvCacheType", "FinishReason"])
def test_every_value_is_there(enum):
    text = re.search(rf"^enum class {enum} {{(.*?)}};", HEADERS["engine"], re.MULTILINE | re.DOTALL).group(1)
    wanted = re.findall(r"\bk([A-Z]\w*)", re.sub(r"//[^\n]*", "", text))
    names = {"F32": "FLOAT32", "BF16": "BFLOAT16"}
    assert list(getattr(idefics, enum).__members__) == [names.get(name.upper(), name.upper()) for name in wanted]


OPTIONS = {
    "dtype": "q8",
    "kv_cache_dtype": "q8",
    "num_threads": 1,
    "max_model_len": 1024,
    "max_num_seqs": 2,
    "max_waiting": 3,
    "max_num_batched_tokens": 64,
    "page_size": 64,
    "kv_cache_bytes": 1 << 20,
    "enable_prefix_caching": False,
    "vision_cache_bytes": 0,
    "pixel_cache_bytes": 0,
    "speculative": False,
    "allow_nonfinite": True,
}


def test_every_option_is_an_argument_of_the_engine():
    assert set(OPTIONS) == set(fields("EngineOptions")) - ONLY_IN_CPP
    engine = idefics.Engine(CARDS, **OPTIONS)
    assert (engine.dtype, engine.kv_cache_dtype, engine.max_model_len) == ("q8", "q8", 1024)
    with pytest.raises(idefics.Error, match='kv_cache_dtype is "int4", wanted auto, float32, bfloat16, q8'):
        idefics.Engine(CARDS, kv_cache_dtype="int4")
    with pytest.raises(TypeError, match="no option 'kv_dtype'"):
        idefics.Engine(CARDS, kv_dtype="q8")
