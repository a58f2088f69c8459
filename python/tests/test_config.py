import json

import idefics
import pytest
from conftest import GOLDENS

FOLDER = GOLDENS / "checkpoints/a_llama3_rope"


def pipeline(**choices):
    return idefics.PipelineConfig(
        idefics.ModelConfig(model_path=FOLDER, huggingface_config=idefics.HuggingFaceConfig.load(FOLDER), **choices)
    )


def test_the_configuration_in_its_phases():
    file = json.loads((FOLDER / "config.json").read_text())
    config = idefics.Idefics3Config.initialize(pipeline(dtype=idefics.DType.float32, max_length=100))
    assert config.text_config.hidden_size == file["text_config"]["hidden_size"]
    assert config.text_config.rope_scaling_params.factor == file["text_config"]["rope_scaling"]["factor"]
    assert config.vision_config.image_size == file["vision_config"]["image_size"]
    assert config.image_seq_len == 4
    assert config.get_max_seq_len() == 100
    assert config.get_kv_params().dtype == idefics.DType.float32
    assert config.get_kv_params().page_size == 128
    assert idefics.Idefics3Config.get_num_layers(idefics.HuggingFaceConfig.load(FOLDER)) == len(
        [0] * config.text_config.num_hidden_layers
    )
    state = idefics.StateDict({"model.text_model.layers.0.input_layernorm.weight": idefics.DType.bfloat16})
    config.finalize(idefics.HuggingFaceConfig.load(FOLDER), state, idefics.ReturnLogits.ALL)
    assert config.text_config.tie_word_embeddings
    assert config.text_config.norm_dtype == idefics.DType.bfloat16
    assert config.text_config.return_logits == idefics.ReturnLogits.ALL


def test_image_seq_len_of_the_known_sizes():
    for image, patch, scale, wanted in [(364, 14, 2, 169), (384, 14, 3, 81), (512, 16, 4, 64), (144, 12, 3, 16)]:
        config = idefics.Idefics3Config()
        vision = config.vision_config
        vision.image_size, vision.patch_size = image, patch
        config.scale_factor = scale
        assert config.image_seq_len == wanted


def test_errors_are_value_errors_with_a_code():
    with pytest.raises(ValueError, match="max_length is 0, wanted 1 to") as raised:
        idefics.Idefics3Model.calculate_max_seq_len(pipeline(max_length=0), idefics.HuggingFaceConfig.load(FOLDER))
    assert isinstance(raised.value, idefics.Error)
    assert raised.value.code == "invalid_value"
    with pytest.raises(idefics.Error) as raised:
        idefics.HuggingFaceConfig.load("/nowhere")
    assert raised.value.code == "bad_model"
    assert issubclass(idefics.PromptTooLongError, idefics.Error)
