"""Every name of the reference's interface is there (tests/names/reference_names.def)."""

import inspect
import re

import idefics
import pytest
from conftest import ROOT

NAMES = re.findall(r'^NAME\("[^"]+", "([^"]+)"', (ROOT / "tests/names/reference_names.def").read_text(), re.MULTILINE)


def test_the_list_is_read():
    assert len(NAMES) > 100


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name):
    found = idefics
    for part in name.split("."):
        found = getattr(found, part)
    assert found is not None


def arguments(function):
    """The names of the arguments as the docstring's signature has them."""
    signature = function.__doc__.splitlines()[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    return re.findall(r"(?:^|, )(\w+)(?=:| =|,|$)", re.sub(r"\[[^\[\]]*(\[[^\[\]]*\][^\[\]]*)*\]", "", inside))


@pytest.mark.parametrize(
    "function, wanted",
    [
        (
            idefics.Idefics3Model.__init__,
            ["pipeline_config", "session", "devices", "kv_cache_config", "weights", "adapter", "return_logits"],
        ),
        (
            idefics.Idefics3Model.prepare_initial_token_inputs,
            ["replica_batches", "kv_cache_inputs", "return_n_logits"],
        ),
        (idefics.Idefics3Model.prepare_next_token_inputs, ["next_tokens", "prev_model_inputs"]),
        (idefics.Idefics3Model.calculate_max_seq_len, ["pipeline_config", "huggingface_config"]),
        (idefics.Idefics3Config.initialize, ["pipeline_config", "model_config", "max_seq_len"]),
        (
            idefics.Idefics3Config.finalize,
            ["huggingface_config", "llm_state_dict", "return_logits", "norm_method"],
        ),
        (
            idefics.Idefics3VisionConfig.initialize_from_config,
            ["pipeline_config", "huggingface_config", "text_config_hidden_size"],
        ),
        (
            idefics.Idefics3Inputs.__init__,
            ["tokens", "input_row_offsets", "return_n_logits", "pixel_values", "image_token_indices"],
        ),
    ],
)
def test_arguments_are_in_the_order_of_the_reference(function, wanted):
    found = [name for name in arguments(function) if name != "self"]
    assert found[: len(wanted)] == wanted


def test_public_classes_have_docstrings():
    for name in idefics.__all__:
        value = getattr(idefics, name)
        if inspect.isclass(value):
            assert value.__doc__, name


def test_the_model_config_class():
    assert idefics.Idefics3Model.model_config_cls is idefics.Idefics3Config
