"""An engine for the Idefics3 family of vision-language models.

    import idefics
    engine = idefics.Engine("models/x")
    answer = engine.generate(idefics.Request([{"role": "user", "content": [
        {"type": "image", "image": "card.png"}, {"type": "text", "text": "What is this?"}]}]))
    print(answer.text)

`Engine` answers requests; `Idefics3Model` computes single steps, under the names of the reference. Everything that the
outside world can get wrong raises `Error`, a subclass of ValueError. docs/api.md has the names, shapes and examples.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from . import aio
from ._idefics import (
    Answer,
    Architecture,
    Choice,
    ComputeType,
    ContentPart,
    DeviceRef,
    DType,
    EngineBase,
    EngineOptions,
    EngineStats,
    Error,
    Event,
    EventStream,
    EventType,
    FinishReason,
    HuggingFaceConfig,
    Idefics3Config,
    Idefics3Inputs,
    Idefics3Model,
    Idefics3Tokenizer,
    Idefics3VisionConfig,
    ImageMetadata,
    ImageOptions,
    InferenceSession,
    KvCacheType,
    KVCacheConfig,
    KVCacheInputs,
    KVCacheParams,
    Llama3Config,
    Llama3RopeScalingParams,
    Message,
    Model,
    ModelConfig,
    ModelOutputs,
    NormMethod,
    PagedKVCacheManager,
    PipelineConfig,
    Processor,
    Prompt,
    PromptImage,
    PromptOptions,
    PromptTooLongError,
    Request,
    ReturnHiddenStates,
    ReturnLogits,
    SamplingParams,
    StateDict,
    StructuredOutput,
    TextAndVisionContext,
    TextGenerationRequest,
    TileSpan,
    Timings,
    TokenBuffer,
    TokenInfo,
    TokenLogprob,
    Usage,
    remove_padding_frames,
)

__version__ = "0.1.0"


_TYPES = {"dtype": ComputeType, "kv_cache_dtype": KvCacheType}


class Engine(EngineBase):
    """A checkpoint that answers, many requests at once.

    `options` are the fields of EngineOptions; `dtype` may also be "auto", "float32", "bfloat16", "int8", "q8" or "q4",
    and `kv_cache_dtype` "auto", "float32", "bfloat16" or "q8".
    All methods may be called from several threads at once. Raises Error ("bad_model", "invalid_value",
    "out_of_memory").
    """

    def __init__(self, folder: str | os.PathLike[str], **options: object) -> None:
        chosen = EngineOptions()
        for name, value in options.items():
            if not hasattr(chosen, name):
                raise TypeError(f"Engine: there is no option {name!r}")
            if name in _TYPES and isinstance(value, str):
                members = _TYPES[name].__members__
                if value.upper() not in members:
                    raise Error(f'{name} is "{value}", wanted {", ".join(members).lower()}')
                value = members[value.upper()]
            setattr(chosen, name, value)
        super().__init__(os.fspath(folder), chosen)

    def stream(self, request: Request) -> AsyncIterator[Event]:
        """The events of `request`, for `async for`."""
        return aio.stream(self, request)


__all__ = [name for name in dir() if name[0].isupper() and name != "AsyncIterator"] + ["remove_padding_frames"]
