"""The model-level interface against recorded values of the reference."""

import threading

import idefics
import numpy as np
import pytest
from conftest import GOLDENS, read_lines, within

CHECKPOINTS = ["a_llama3_rope", "b_head_dim", "c_smolvlm", "d_null_scaling", "e_defaults", "f_granite"]


def load(name, mode=idefics.ReturnLogits.ALL, **options):
    return idefics.Idefics3Model.load(GOLDENS / "checkpoints" / name, mode, dtype=idefics.DType.float32, **options)


def context_of(name, row):
    pictures = iter(row["pictures"])
    messages = [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": GOLDENS / "stages" / name / next(pictures)} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in row["messages"]
    ]
    options = idefics.PromptOptions(images=idefics.ImageOptions(split=row["split"]))
    tokenizer = idefics.Idefics3Tokenizer.load(GOLDENS / "checkpoints" / name)
    return tokenizer.new_context(idefics.TextGenerationRequest(row["case"], messages, options=options))


class Sequences:
    def __init__(self, model, contexts, pages=8):
        self.model, self.contexts = model, contexts
        self.kv = idefics.PagedKVCacheManager(model.config.get_kv_params(), pages)
        for context in contexts:
            self.kv.claim(context)

    def inputs(self, n=1):
        for context in self.contexts:
            self.kv.alloc(context)
        return self.model.prepare_initial_token_inputs([self.contexts], self.kv.runtime_inputs(self.contexts), n)


@pytest.fixture(scope="module")
def model():
    return load("c_smolvlm")


@pytest.fixture(scope="module")
def rows():
    return {row["case"]: row for row in read_lines("stages/c_smolvlm/cases.jsonl")}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_stages_and_greedy_tokens(name):
    model = load(
        name, return_hidden_states=idefics.ReturnHiddenStates.SELECTED_LAYERS, hidden_state_layers=[0, 1]
    )
    for row in read_lines(f"stages/{name}/cases.jsonl"):
        context = context_of(name, row)
        assert context.tokens.all.tolist() == row["ids"]
        one = Sequences(model, [context])
        inputs = one.inputs()
        if inputs.has_vision_inputs:
            (features,) = model.vision_model(inputs.pixel_values)
            assert within(features, row["stages"]["connector"])
        out = model.execute(inputs)
        assert within(out.hidden_states[0], row["stages"]["merged"])
        assert within(out.hidden_states[1], row["stages"]["text.layer.0"])
        assert within(out.logits, row["stages"]["logits"])
        assert out.logits.argmax(-1).tolist() == row["argmax"]
        for want in row["greedy_f32"]["ids"]:
            best = int(out.next_token_logits[0].argmax())
            assert best == want
            context.update(best)
            out = model.execute(one.inputs())


def test_arrays_come_out_and_go_in_without_a_copy(model, rows):
    inputs = Sequences(model, [context_of("c_smolvlm", rows["split"])]).inputs()
    a, b = inputs.pixel_values, inputs.pixel_values
    assert a.dtype == np.float32 and a.ctypes.data == b.ctypes.data
    inputs.pixel_values = mine = np.array(a)
    assert inputs.pixel_values.ctypes.data == mine.ctypes.data
    out = model.execute(inputs)
    assert out.logits.ctypes.data == out.logits.ctypes.data
    assert np.from_dlpack(out.logits).ctypes.data == out.logits.ctypes.data
    kept = out.logits
    want = kept.copy()
    del out
    assert np.array_equal(kept, want), "an array outlives the outputs"


def test_types_of_the_inputs(model, rows):
    inputs = Sequences(model, [context_of("c_smolvlm", rows["text"])]).inputs()
    assert inputs.tokens.dtype == np.int64
    assert inputs.input_row_offsets.dtype == np.uint32
    assert inputs.return_n_logits.tolist() == [1]
    assert inputs.pixel_values is None and not inputs.has_vision_inputs
    assert inputs.image_token_indices.dtype == np.int32 and inputs.image_token_indices.shape == (0,)
    assert inputs.kv_cache_inputs.cache_lengths.tolist() == [0]


def test_bfloat16_pixels_are_dlpack_objects(rows):
    model = idefics.Idefics3Model.load(GOLDENS / "checkpoints/c_smolvlm", dtype=idefics.DType.bfloat16)
    inputs = Sequences(model, [context_of("c_smolvlm", rows["one"])]).inputs()
    assert hasattr(inputs.pixel_values, "__dlpack__")
    want = model.execute(inputs).logits
    inputs.pixel_values = inputs.pixel_values  # through DLPack and back
    assert np.array_equal(model.execute(inputs).logits, want)


def test_lists_and_strided_arrays_are_taken(model, rows):
    inputs = Sequences(model, [context_of("c_smolvlm", rows["text"])]).inputs()
    want = model.execute(inputs).logits
    tokens = inputs.tokens
    inputs.tokens = tokens.tolist()
    assert np.array_equal(model.execute(inputs).logits, want)
    inputs.tokens = np.repeat(tokens, 2)[::2]
    assert np.array_equal(model.execute(inputs).logits, want)


def test_a_batch_gives_the_bytes_of_each_sequence_alone(model, rows):
    contexts = [context_of("c_smolvlm", rows[case]) for case in ("one", "text", "split")]
    batch = model.execute(Sequences(model, contexts).inputs())
    for i, context in enumerate(contexts):
        first, end = batch.logit_offsets[i : i + 2]
        alone = model.execute(Sequences(model, [context]).inputs())
        assert np.array_equal(alone.logits, batch.logits[first:end])
        assert np.array_equal(batch.next_token_logits[i], batch.logits[end - 1])


def test_inputs_by_hand(model):
    kv = idefics.PagedKVCacheManager(model.config.get_kv_params(), 2)
    context = idefics.TextAndVisionContext()
    context.tokens = idefics.TokenBuffer([5, 6, 7])
    kv.claim(context)
    kv.alloc(context)
    cache = kv.runtime_inputs([context])
    inputs = idefics.Idefics3Inputs(
        np.array([5, 6, 7]), np.array([0, 3], np.uint32), np.array([1]), kv_cache_inputs=cache
    )
    want = model.execute(model.prepare_initial_token_inputs([[context]], cache)).logits
    assert np.array_equal(model.execute(inputs).logits, want)
    E = model.config.text_config.hidden_size
    out = model.language_model(
        inputs.tokens,
        inputs.input_row_offsets,
        inputs.return_n_logits,
        np.zeros((0, E), np.float32),
        np.zeros(0, np.int32),
        *cache.flatten(),
    )
    assert np.array_equal(out[1], want)


def test_refusals_name_the_input(model, rows):
    context = context_of("c_smolvlm", rows["one"])
    one = Sequences(model, [context])
    with pytest.raises(idefics.Error, match="Idefics3 requires KV cache inputs"):
        model.execute(model.prepare_initial_token_inputs([[context]]))
    inputs = one.inputs()
    count = len(inputs.image_token_indices)
    inputs.image_token_indices = inputs.image_token_indices[:3].copy()
    with pytest.raises(idefics.Error, match=f"Vision embedding shape mismatch: {count} embeddings but 3 indices."):
        model.execute(inputs)
    with pytest.raises(idefics.Error, match="2 batches, wanted exactly one"):
        model.prepare_initial_token_inputs([[context], [context]])
    with pytest.raises(idefics.Error, match="the batch is empty"):
        model.prepare_initial_token_inputs([[]])
    with pytest.raises(idefics.Error, match="tokens is float32"):
        inputs = one.inputs()
        inputs.tokens = np.zeros(3, np.float32)
        model.execute(inputs)
    with pytest.raises(idefics.Error, match="its type is none of"):
        inputs.tokens = np.zeros(3, np.complex64)


def test_padding_frames():
    padded = np.zeros((2, 2, 3, 4, 4), np.float32)
    padded[0, 1, 2, 3, 3] = 1
    frames, counts = idefics.remove_padding_frames(padded, idefics.Architecture.IDEFICS3)
    assert counts == [1, 0] and np.array_equal(frames, padded[0, 1:])


def test_an_adapter_renames_tensors_and_its_errors_come_through():
    folder = GOLDENS / "checkpoints/c_smolvlm"
    pipeline = idefics.PipelineConfig(
        idefics.ModelConfig(huggingface_config=idefics.HuggingFaceConfig.load(folder), dtype=idefics.DType.float32)
    )

    def build(adapter):
        return idefics.Idefics3Model(
            pipeline, idefics.InferenceSession(1), [idefics.DeviceRef()], idefics.KVCacheConfig(), folder, adapter
        )

    assert build(lambda name: name).config.image_seq_len == 4
    with pytest.raises(idefics.Error, match="bad_model|missing"):
        build(lambda name: "x." + name)
    with pytest.raises(ZeroDivisionError):
        build(lambda name: 1 // 0)


def test_threads_of_python_take_turns_and_agree(model, rows):
    results = []

    def work():
        results.append(model.execute(Sequences(model, [context_of("c_smolvlm", rows["split"])]).inputs()).logits)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(r, results[0]) for r in results)
