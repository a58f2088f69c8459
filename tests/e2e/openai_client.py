"""openai-python against idefics serve: python openai_client.py PROGRAM MODEL. Ends with 1 and a line at the first fault."""

import asyncio
import base64
import enum
import json
import time

import httpx
import openai
import pydantic

from served import Server, check, model
import served


def raises(kind, call, code, param=None):
    try:
        call()
    except kind as e:
        check(type(e) is kind, f"wanted exactly {kind.__name__}, found {e!r}")
        check(e.code == code and (param is None or e.param == param), f"wanted {code}, {param}; found {e.code}, {e.param}")
        check(e.request_id, "an error has a request id")
        return
    check(False, f"wanted {kind.__name__} for {code}")


def picture(name):
    data = base64.b64encode((model / "samples" / name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


question = [{"role": "user", "content": [picture("06.png"), {"type": "text", "text": "How many shapes are there?"}]}]
with Server(key="the-key") as server:
    url = server.url
    client = openai.OpenAI(base_url=url + "/v1", api_key="the-key", max_retries=0)
    name = client.models.list().data[0].id
    check(name == "tiny-cards", name)
    check(client.models.retrieve(name).owned_by == "idefics", "a model by its name")

    answer = client.chat.completions.create(model=name, messages=question, temperature=0)
    expected = " There are three shapes."
    check(answer.choices[0].message.content == expected, answer)
    check(answer.choices[0].finish_reason == "stop", answer)
    check(answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage)
    check(answer.usage.prompt_tokens_details.cached_tokens is not None, answer.usage)

    stream = client.chat.completions.create(model=name, messages=question, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check(text == expected, text)
    check(chunks[0].choices[0].delta.role == "assistant", chunks[0])
    check(chunks[-1].usage.completion_tokens == answer.usage.completion_tokens, chunks[-1])
    check([c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop", chunks)

    several = client.chat.completions.create(
        model=name, messages=question, n=3, temperature=1.5, seed=7, max_tokens=8, logprobs=True, top_logprobs=2)
    check(len(several.choices) == 3, several)
    check(all(len(c.logprobs.content) <= 8 and len(c.logprobs.content[0].top_logprobs) == 2 for c in several.choices), several)
    again = client.chat.completions.create(model=name, messages=question, n=3, temperature=1.5, seed=7, max_tokens=8)
    check([c.message.content for c in again.choices] == [c.message.content for c in several.choices], "a seed repeats itself")

    stopped = client.chat.completions.create(model=name, messages=question, stop=[" shapes"])
    check(stopped.choices[0].message.content == " There are three", stopped)
    short = client.completions.create(model=name, prompt="The image", max_tokens=3, logprobs=2)
    check(short.usage.completion_tokens == 3 and short.choices[0].finish_reason == "length", short)
    check(len(short.choices[0].logprobs.tokens) == 3, short)

    class Colour(enum.Enum):
        red = "red"
        blue = "blue"

    class Card(pydantic.BaseModel):
        colour: Colour
        round: bool
        shapes: list[Colour] = pydantic.Field(max_length=2)

    parsed = client.chat.completions.parse(model=name, messages=question, response_format=Card, max_tokens=300)
    check(isinstance(parsed.choices[0].message.parsed, Card), parsed)
    with client.chat.completions.stream(model=name, messages=question, response_format=Card, max_tokens=300) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    check({"content.delta", "content.done", "chunk"} <= kinds, kinds)
    check(final.choices[0].message.parsed == parsed.choices[0].message.parsed, "the same, streamed")
    try:
        client.chat.completions.parse(model=name, messages=question, response_format=Card, max_tokens=2)
        check(False, "an answer that was cut off cannot be parsed")
    except openai.LengthFinishReasonError:
        pass

    ask = client.chat.completions.create
    hi = [{"role": "user", "content": "Hi"}]
    raises(openai.BadRequestError, lambda: ask(model=name, messages=hi, n=99), "invalid_value", "n")
    raises(openai.BadRequestError, lambda: ask(model=name, messages=[]), "prompt_empty", "messages")
    raises(openai.BadRequestError, lambda: ask(model=name, messages=hi, tools=[{"type": "function", "function": {"name": "f"}}]),
           "unsupported_parameter", "tools")
    raises(openai.BadRequestError, lambda: ask(model=name, messages=[{"role": "user", "content": "word " * 5000}]),
           "context_length_exceeded")
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    raises(openai.BadRequestError, lambda: ask(model=name, messages=[{"role": "user", "content": [broken]}], stream=True),
           "image_invalid", "messages[0].content[0].image_url")
    impossible = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    raises(openai.BadRequestError, lambda: ask(model=name, messages=hi, response_format=impossible), "schema_invalid",
           "response_format.json_schema.schema")
    raises(openai.NotFoundError, lambda: ask(model="gpt-4o", messages=hi), "model_not_found", "model")
    raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"), "model_not_found")
    stranger = openai.OpenAI(base_url=url + "/v1", api_key="another", max_retries=0)
    raises(openai.AuthenticationError, lambda: stranger.models.list(), "invalid_api_key")

    elsewhere = openai.OpenAI(base_url=url + "/v1", api_key="the-key", max_retries=0, default_headers={"Origin": "http://evil"})
    raises(openai.PermissionDeniedError, lambda: elsewhere.models.list(), "origin_not_allowed")
    try:
        client.with_options(timeout=0.05).completions.create(
            model=name, prompt="The", max_tokens=1500, extra_body={"ignore_eos": True})
        check(False, "fifty milliseconds are not enough")
    except openai.APITimeoutError:
        pass

    async def together():
        many = openai.AsyncOpenAI(base_url=url + "/v1", api_key="the-key", max_retries=0)
        answers = await asyncio.gather(*(many.chat.completions.create(model=name, messages=question) for _ in range(12)))
        check(all(a.choices[0].message.content == expected for a in answers), "twelve at once are alike")

    asyncio.run(together())

    # Closing a stream early ends its request: the server is free at once.
    stream = client.completions.create(model=name, prompt="The", max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    begin = time.monotonic()
    ask(model=name, messages=hi, max_tokens=2)
    check(time.monotonic() - begin < 5, "the next request does not wait for the one that was given up")


def as_open_webui():
    """The requests of Open WebUI to a connection of the kind OpenAI, as its backend (routers/openai.py) makes them."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer the-key", "X-OpenWebUI-User-Name": "A B",
               "X-OpenWebUI-User-Id": "7", "X-OpenWebUI-User-Email": "a@b.c", "X-OpenWebUI-User-Role": "admin",
               "X-OpenWebUI-Chat-Id": "1"}

    def call(path, body=None, code=200):
        reply = httpx.request("POST" if body else "GET", url + "/v1" + path, headers=headers, json=body, timeout=60)
        check(reply.status_code == code, f"{path}: {reply.status_code} {reply.text}")
        return reply

    listed = call("/models").json()
    check(listed["object"] == "list" and [m["id"] for m in listed["data"]] == ["tiny-cards"], listed)
    # The question stands before its picture, a conversation carries what was said, and all comes in a stream with usage.
    seen = [{"type": "text", "text": "How many shapes are there?"}, picture("06.png")]
    talk = [{"role": "system", "content": "You look at cards."}, {"role": "user", "content": seen}]
    for messages in (talk, talk + [{"role": "assistant", "content": "Three."}, {"role": "user", "content": "Are you sure?"}]):
        body = {"model": "tiny-cards", "messages": messages, "stream": True, "stream_options": {"include_usage": True},
                "temperature": 0.8, "top_p": 0.9, "max_tokens": 40, "frequency_penalty": 0.1, "presence_penalty": 0,
                "seed": 3, "stop": ["</end>"], "logit_bias": {"5": -100}}
        reply = call("/chat/completions", body)
        check(reply.headers["content-type"].startswith("text/event-stream"), reply.headers)
        events = [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]
        check(events[-1] == "[DONE]" and json.loads(events[-2])["usage"]["prompt_tokens"] > 80, events[-2:])
    # Titles, tags and further questions.
    body = {"model": "tiny-cards", "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title."}],
            "stream": False, "max_completion_tokens": 50}
    check(isinstance(call("/chat/completions", body).json()["choices"][0]["message"]["content"], str), "a title")
    check("error" in call("/chat/completions", {**body, "model": "another"}, 404).json(), "what its user is shown")


with Server(key="the-key") as server:
    url = server.url
    as_open_webui()

# A queue of one: some of many get 503 with Retry-After, and the client's own retries bring them all through.
with Server("--max-queue", "1", "--max-num-seqs", "1", "--threads", "1") as server:
    url = server.url

    async def overload():
        impatient = openai.AsyncOpenAI(base_url=url + "/v1", api_key="x", max_retries=0)
        patient = openai.AsyncOpenAI(base_url=url + "/v1", api_key="x", max_retries=30)
        call = lambda c: c.completions.create(model="tiny-cards", prompt="The", max_tokens=200, extra_body={"ignore_eos": True})
        results = await asyncio.gather(*(call(impatient) for _ in range(20)), return_exceptions=True)
        refused = [r for r in results if isinstance(r, Exception)]
        check(refused, "twenty do not fit into a queue of one")
        for r in refused:
            check(isinstance(r, openai.InternalServerError) and r.status_code == 503 and r.code == "overloaded", repr(r))
            check(r.response.headers["retry-after"], "Retry-After")
        check(len(refused) < 20, "some of them are answered")
        await asyncio.gather(*(call(patient) for _ in range(4)))

    asyncio.run(overload())

try:
    openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0).models.list()
    check(False, "nobody listens any more")
except openai.APIConnectionError as e:
    check(type(e) is openai.APIConnectionError, repr(e))
print(f"{served.checks} checks passed")
