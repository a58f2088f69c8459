"""langchain-openai against idefics serve: python langchain_client.py PROGRAM MODEL. Ends with 1 and a line at the first fault."""

import asyncio
import base64
import enum

import openai
import pydantic
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from served import Server, check, model
import served

data = base64.b64encode((model / "samples" / "06.png").read_bytes()).decode()
openai_form = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
# LangChain's own form of a picture, which it turns into OpenAI's.
standard_form = {"type": "image", "base64": data, "mime_type": "image/png"}
answer = " There are three shapes."


def question(picture, text="How many shapes are there?"):
    return [HumanMessage(content=[picture, {"type": "text", "text": text}])]


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Card(pydantic.BaseModel):
    """A card."""

    colour: Colour = pydantic.Field(description="The main one")
    round: bool


with Server(key="the-key") as server:
    chat = ChatOpenAI(base_url=server.url + "/v1", api_key="the-key", model="tiny-cards", temperature=0, max_retries=0)

    for picture in (openai_form, standard_form):
        said = chat.invoke(question(picture))
        check(said.content == answer, said)
        check(said.response_metadata["finish_reason"] == "stop", said)
        check(said.usage_metadata["output_tokens"] == 7 and said.usage_metadata["input_tokens"] == 111, said)
    blind = chat.invoke([HumanMessage(content="How many shapes are there?")])
    check(blind.content != answer, "the picture is seen")

    chunks = list(chat.stream(question(openai_form), stream_usage=True))
    check("".join(chunk.content for chunk in chunks) == answer, chunks)
    check(sum(bool(chunk.content) for chunk in chunks) >= 3, f"it comes in pieces: {chunks}")
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    check(whole.usage_metadata == said.usage_metadata, f"{whole.usage_metadata}, {said.usage_metadata}")

    async def together():
        many = await chat.abatch([question(openai_form)] * 6)
        check(all(one.content == answer for one in many), many)
        pieces = [chunk.content async for chunk in chat.astream(question(openai_form))]
        check("".join(pieces) == answer, pieces)

    asyncio.run(together())

    talk = question(openai_form) + [AIMessage(content=answer), HumanMessage(content="What colour is the circle?")]
    check("circle" in chat.invoke(talk).content, "a conversation goes on")

    found = chat.with_structured_output(Card, method="json_schema").invoke(question(openai_form))
    check(isinstance(found, Card), found)
    found = chat.with_structured_output(None, method="json_mode").invoke(question(openai_form))
    check(isinstance(found, dict), found)
    both = chat.with_structured_output(Card, method="json_schema", include_raw=True).invoke(question(openai_form))
    check(both["parsing_error"] is None and both["parsed"] == Card.model_validate_json(both["raw"].content), both)
    *_, last = chat.with_structured_output(Card, method="json_schema").stream(question(openai_form))
    check(last == both["parsed"], f"the same, streamed: {last}")

    prompt = ChatPromptTemplate.from_messages(
        [("system", "You look at cards."),
         ("human", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,{picture}"}},
                    {"type": "text", "text": "{question}"}])])
    said = (prompt | chat).invoke({"picture": data, "question": "How many shapes are there?"})
    check("shape" in said.content, said)

    logged = chat.bind(logprobs=True, top_logprobs=2, max_tokens=4, stop=[" three"]).invoke(question(openai_form))
    check(logged.content == " There are", logged)
    check(len(logged.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2, logged)

    try:
        chat.bind_tools([Card]).invoke("Hi")
        check(False, "tools are refused")
    except openai.BadRequestError as e:
        check(e.code == "unsupported_parameter" and e.param == "tools", repr(e))
    stranger = ChatOpenAI(base_url=server.url + "/v1", api_key="another", model="tiny-cards", max_retries=0)
    try:
        stranger.invoke("Hi")
        check(False, "a wrong key is refused")
    except openai.AuthenticationError as e:
        check(e.code == "invalid_api_key", repr(e))

# A queue of one: LangChain's retries bring all through.
with Server("--max-queue", "1", "--max-num-seqs", "1", "--threads", "1") as server:
    patient = ChatOpenAI(base_url=server.url + "/v1", api_key="x", model="tiny-cards", max_retries=30, max_tokens=100)

    async def overload():
        many = await patient.abatch([[HumanMessage(content="Hi")]] * 12)
        check(len(many) == 12, many)

    asyncio.run(overload())
print(f"{served.checks} checks passed")
