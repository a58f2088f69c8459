import asyncio
import json
import os
import re
import signal
import threading
import time

import idefics
import pytest
from conftest import CARDS, ask

EXPECTED = json.loads((CARDS / "samples/expected.json").read_text())


def test_answers_are_those_of_the_reference(engine):
    for row in EXPECTED[:10]:
        answer = engine.generate(ask(row["image"], row["prompt"]))
        assert answer.prompt_token_ids == row["prompt_token_ids"]
        assert answer.token_ids == row["token_ids"]
        assert answer.text == row["text"]
        assert answer.finish_reason == idefics.FinishReason.STOP


def test_each_picture_of_a_request_is_cut_as_it_asks_for(engine):
    picture, whole = CARDS / "samples/06.png", idefics.ImageOptions(split=False)
    parts = [
        {"type": "image", "image": picture, "options": whole},
        {"type": "image", "image": picture},
        idefics.ContentPart.of_image(picture, idefics.ImageOptions(max_tiles=3)),
        "Describe the image.",
    ]
    assert parts[2].options.max_tiles == 3 and parts[2].options.split is None
    answer = engine.generate(idefics.Request([{"role": "user", "content": parts}]))
    assert answer.usage.image_tokens == 16 + 80 + 16
    with pytest.raises(idefics.Error, match="ImageOptions"):
        idefics.Request([{"role": "user", "content": [{"type": "image", "image": picture, "options": 7}]}])


def test_callbacks_see_the_text_and_the_tiles(engine):
    deltas, tiles = [], []
    request = ask("06.png", "How many shapes are there?")
    answer = engine.generate(request, on_text=deltas.append, on_tiles=lambda done, total: tiles.append((done, total)))
    assert "".join(deltas) == answer.text
    assert tiles[-1] == (5, 5)
    with pytest.raises(ZeroDivisionError):
        engine.generate(request, on_text=lambda delta: 1 // 0)


def test_events_as_an_iterator(engine):
    events = list(engine.submit(ask("06.png", "How many shapes are there?", logprobs=2)))
    types = [event.type for event in events]
    assert types[0] == idefics.EventType.PROMPT and types[-1] == idefics.EventType.END
    text = "".join(event.text for event in events)
    assert text == engine.generate(ask("06.png", "How many shapes are there?")).text
    tokens = [token for event in events for token in event.tokens]
    assert len(tokens) == events[-1].usage.completion_tokens
    assert all(len(token.top) == 2 and token.top[0].logprob >= token.top[1].logprob for token in tokens)
    assert events[-1].error is None


def test_a_refused_request_raises(engine):
    with pytest.raises(idefics.Error) as raised:
        engine.generate(ask("", ""))
    assert raised.value.code == "prompt_empty"
    with pytest.raises(idefics.Error):
        list(engine.submit(ask("", "")))
    with pytest.raises(idefics.Error, match="image: wanted the bytes"):
        idefics.Request([{"role": "user", "content": [{"type": "image", "image": 7}]}])
    with pytest.raises(idefics.Error, match='"video"'):
        idefics.Request([{"role": "user", "content": [{"type": "video"}]}])


def test_structured_answers_are_what_was_asked_for(engine):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 12}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }

    def text(output):
        request = ask("06.png", "Describe the image.", structured_output=output)
        request.sampling = idefics.SamplingParams(temperature=1.5, seed=3, max_tokens=80)
        return engine.generate(request).text

    make = idefics.StructuredOutput
    for output in (make.json_schema(schema), make.json_schema(json.dumps(schema))):
        value = json.loads(text(output))
        assert value["colour"] in ("red", "blue") and 0 <= value["count"] <= 12 and len(value) == 2
    assert text(make.choice(["red circle", "blue"])) in ("red circle", "blue")
    assert re.fullmatch("[0-9]{3}-[a-f]{2}", text(make.regex("[0-9]{3}-[a-f]{2}")))
    assert text(make.grammar('root ::= "a" "b"{2} ("c" | "d")')) in ("abbc", "abbd")
    assert text(make.json_object()).lstrip().startswith("{")  # cut at 80 tokens
    assert make.choice(["a"]).kind == "choice" and make.choice(["a"]).choices == ["a"]
    assert make.json_schema(schema).text == json.dumps(schema)
    with pytest.raises(idefics.Error) as raised:
        text(make.json_schema({"type": "nonsense"}))
    assert raised.value.code == "schema_invalid"
    with pytest.raises(TypeError):
        make.json_schema({1, 2})


def test_log_probabilities_choices_and_salts(engine):
    request = ask("06.png", "How many shapes are there?", logprobs=2, prompt_logprobs=1, n=2)
    answer = engine.generate(request)
    assert len(answer.choices) == 2
    assert [token.id for token in answer.choices[1].tokens] == answer.choices[1].token_ids
    assert len(answer.prompt_logprobs) == len(answer.prompt_token_ids)
    assert len(answer.prompt_logprobs[1].top) == 1 and answer.prompt_logprobs[1].logprob <= 0
    assert all(len(token.top) == 2 for token in answer.choices[0].tokens)
    long = idefics.Request(token_ids=[5, 6, 7, 8] * 60, cache_salt="one")
    long.sampling = idefics.SamplingParams(max_tokens=1)
    engine.generate(long)
    assert engine.generate(long).usage.cached_tokens > 0
    long.cache_salt = "two"
    assert engine.generate(long).usage.cached_tokens == 0


def test_many_streams_at_once_on_asyncio(engine):
    rows = EXPECTED[:6]

    async def text_of(row):
        text = ""
        async for event in engine.stream(ask(row["image"], row["prompt"])):
            text += event.text
        return text

    async def all_of_them():
        return await asyncio.gather(*[text_of(row) for row in rows])

    assert asyncio.run(all_of_them()) == [row["text"] for row in rows]


def test_leaving_a_stream_cancels_its_request(engine):
    # Eight answers: one is over in a fifth of a second, before a busy machine has cancelled it.
    long = ask("", "Tell a story.", n=8, sampling=idefics.SamplingParams(ignore_eos=True, max_tokens=1500, temperature=1))

    async def leave():
        stream = engine.stream(long)
        async for event in stream:
            if event.tokens:
                break
        await stream.aclose()

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(consume(), 0.2)

    async def consume():
        async for _ in engine.stream(long):
            pass

    before = engine.stats.cancelled
    asyncio.run(leave())
    for event in engine.submit(long):
        if event.tokens:
            break  # dropping the iterator cancels, too
    del event
    # The counters are those of whole steps: a step that gave the tokens above may not be among them yet.
    deadline = time.monotonic() + 20
    while (engine.stats.running or engine.stats.cancelled < before + 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.stats.running == 0
    assert engine.stats.cancelled >= before + 3


def test_a_refusal_on_asyncio_raises(engine):
    async def run():
        async for _ in engine.stream(ask("", "")):
            pass

    with pytest.raises(idefics.Error):
        asyncio.run(run())


@pytest.mark.parametrize("how", ["generate", "submit"])
def test_ctrl_c_ends_a_request(engine, how):
    request = ask("", "Tell a story.", sampling=idefics.SamplingParams(ignore_eos=True, max_tokens=1800))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        if how == "generate":
            engine.generate(request)
        else:
            for _ in engine.submit(request):
                pass
        time.sleep(5)  # if the machine was faster than the signal
    timer.join()


def test_other_threads_run_while_it_computes(engine):
    ticks = 0
    done = threading.Event()

    def tick():
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    engine.generate(ask("", "Hi", sampling=idefics.SamplingParams(ignore_eos=True, max_tokens=60)))
    done.set()
    thread.join()
    assert ticks > 3


def test_options(cards):
    with pytest.raises(TypeError, match="no option 'batch'"):
        idefics.Engine(cards, batch=3)
    with pytest.raises(idefics.Error, match='dtype is "int3"'):
        idefics.Engine(cards, dtype="int3")
    with pytest.raises(idefics.Error) as raised:
        idefics.Engine("/nowhere")
    assert raised.value.code == "bad_model"
    small = idefics.Engine(cards, max_model_len=64, dtype="bfloat16")
    assert small.dtype == "bf16" and small.max_model_len == 64
    with pytest.raises(idefics.PromptTooLongError):
        small.generate(ask("01.png", "hello"))


def test_the_processor(engine):
    processor = engine.processor
    image = processor.cut(CARDS / "samples/01.png")
    assert image.tiles.shape == (image.count, image.side, image.side, 3)
    assert processor.pixel_values(image).shape == (image.count, 3, image.side, image.side)
    prompt = processor.prompt([{"role": "user", "content": "three shapes"}])
    assert processor.detokenize(prompt.ids.tolist(), skip_special_tokens=False) == prompt.text
    assert processor.tokenize("<image>", untrusted=True) != [processor.image_token_id]
