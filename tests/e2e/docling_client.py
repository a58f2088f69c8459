"""docling's pipeline for vision-language models behind an interface, against idefics serve: python docling_client.py PROGRAM
MODEL. The pipeline itself is docling's; only the class DocumentConverter, which loads torch for audio, is left out."""

import time
import warnings

from docling.backend.image_backend import ImageDocumentBackend
from docling.datamodel.base_models import ConversionStatus, InputFormat, VlmStopReason
from docling.datamodel.document import InputDocument
from docling.datamodel.pipeline_options import VlmPipelineOptions
from docling.datamodel.pipeline_options_vlm_model import ApiVlmOptions, ResponseFormat
from docling.models.utils.generation_utils import GenerationStopper
from docling.pipeline.vlm_pipeline import VlmPipeline
from docling_core.types.doc import PictureItem
import requests

from served import Server, check, model
import served

warnings.simplefilter("ignore", DeprecationWarning)


def convert(url, path=model / "samples" / "06.png", stoppers=(), **params):
    options = VlmPipelineOptions(enable_remote_services=True)
    options.vlm_options = ApiVlmOptions(
        url=url + "/v1/chat/completions", prompt="Convert this page to docling.", timeout=60, concurrency=2, scale=1.0,
        temperature=0.0, response_format=ResponseFormat.DOCTAGS, custom_stopping_criteria=list(stoppers),
        params={"stop": ["</doctag>", "<|end_of_text|>"], **params})
    page = InputDocument(path_or_stream=path, format=InputFormat.IMAGE, backend=ImageDocumentBackend, filename=path.name)
    return VlmPipeline(options).execute(page, raises_on_error=False)


class Never(GenerationStopper):
    """Streams, and stops nothing."""

    def should_stop(self, text):
        return False


class AtOnce(GenerationStopper):
    """Closes the connection in the middle of an answer, as docling does when text repeats itself."""

    def should_stop(self, text):
        return True


def running(url):
    lines = requests.get(url + "/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines
               if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{")))


with Server("--threads", "1") as server:
    result = convert(server.url)
    response = result.pages[0].predictions.vlm_response
    check(result.status == ConversionStatus.SUCCESS and not result.errors, result.errors)
    check(response.text.startswith("<doctag><picture><loc_"), f"tags are kept: {response.text}")
    check("</doctag>" not in response.text and response.stop_reason == VlmStopReason.END_OF_SEQUENCE, response)
    check(response.usage["prompt_tokens_details"]["image_tokens"] == 80, response.usage)
    pictures = [item for item, _ in result.document.iterate_items() if isinstance(item, PictureItem)]
    check(len(pictures) == 3 and all(item.prov[0].bbox.area() > 0 for item in pictures), "three shapes with their places")

    streamed = convert(server.url, stoppers=[Never()]).pages[0].predictions.vlm_response
    check(streamed.text.strip() == response.text, f"the same, streamed: {streamed.text}")
    other = convert(server.url, model / "samples" / "01.png").pages[0].predictions.vlm_response
    check(other.text != response.text, "the picture is seen")

    aborted = convert(server.url, stoppers=[AtOnce()], ignore_eos=True, max_tokens=1500, stop=[])
    check(aborted.pages[0].predictions.vlm_response.stop_reason == VlmStopReason.STOP_SEQUENCE, aborted.pages[0])
    end = time.monotonic() + 10
    while running(server.url) and time.monotonic() < end:
        time.sleep(0.05)
    check(running(server.url) == 0, "a connection that docling closes ends its request")

    cut = convert(server.url, max_tokens=4).pages[0].predictions.vlm_response
    check(cut.stop_reason == VlmStopReason.LENGTH, cut)
    refused = convert(server.url, n=99)
    check(refused.status != ConversionStatus.SUCCESS and "n is 99" in str(refused.errors), refused.errors)
print(f"{served.checks} checks passed")
