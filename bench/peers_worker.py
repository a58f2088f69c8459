"""What bench/peers runs in the interpreter of a Python engine: reads a request a line, writes its numbers.

    PYTHON bench/peers_worker.py transformers|openvino FOLDER THREADS

A request is {"text", "picture", "split", "max_tokens"} in JSON, an answer "ANSWER " and JSON.
"""

import json
import resource
import sys
import time

import torch
from PIL import Image
from transformers import AutoProcessor


class Clock:
    """Notes when the vision tower and each step of the text tower ran."""

    def start(self):
        self.begun, self.vision, self.steps = time.perf_counter(), 0.0, []

    def begin_vision(self, *_):
        self.vision_begun = time.perf_counter()

    def end_vision(self, *_):
        self.vision += time.perf_counter() - self.vision_begun

    def end_step(self, *_):
        self.steps.append(time.perf_counter())

    def time_vision(self, function):
        def timed(*args, **kwargs):
            begun = time.perf_counter()
            out = function(*args, **kwargs)
            if out is not None:  # what optimum gives for a step without a picture
                self.vision += time.perf_counter() - begun
            return out

        return timed

    def time_step(self, function):
        def timed(*args, **kwargs):
            out = function(*args, **kwargs)
            self.end_step()
            return out

        return timed


def load_transformers(folder, clock):
    from transformers import AutoModelForImageTextToText
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    # Hooks, since generate() looks at the signature of forward.
    model.model.vision_model.register_forward_pre_hook(clock.begin_vision)
    model.model.connector.register_forward_hook(clock.end_vision)
    model.register_forward_hook(clock.end_step)
    return model


def load_openvino(folder, threads, clock):
    from optimum.intel import OVModelForVisualCausalLM
    model = OVModelForVisualCausalLM.from_pretrained(
        folder, ov_config={"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
    model.get_vision_embeddings = clock.time_vision(model.get_vision_embeddings)
    model.language_model.forward = clock.time_step(model.language_model.forward)
    return model


def answer(request, processor, model, clock):
    clock.start()
    content = [{"type": "text", "text": request["text"]}]
    pictures = None
    if request["picture"]:
        content.insert(0, {"type": "image"})
        pictures = [Image.open(request["picture"])]
    processor.image_processor.do_image_splitting = request["split"]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=text, images=pictures, return_tensors="pt")
    prepared = time.perf_counter()
    with torch.inference_mode():
        model.generate(**inputs, do_sample=False, max_new_tokens=request["max_tokens"])
    steps = clock.steps
    numbers = {"ttft_ms": 1000 * (steps[0] - clock.begun), "prompt_tokens": inputs["input_ids"].shape[1],
               "prefill_ms": 1000 * (steps[0] - prepared - clock.vision),
               "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if len(steps) > 1:
        numbers["decode_tokens_per_s"] = (len(steps) - 1) / (steps[-1] - steps[0])
    if pictures:
        numbers |= {"preprocess_ms": 1000 * (prepared - clock.begun), "vision_ms": 1000 * clock.vision,
                    "tiles": inputs["pixel_values"].shape[1]}
    return numbers


def main():
    kind, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    clock = Clock()
    processor = AutoProcessor.from_pretrained(folder)
    model = load_transformers(folder, clock) if kind == "transformers" else load_openvino(folder, threads, clock)
    model.generation_config.eos_token_id = None  # no answer ends by itself
    for line in sys.stdin:
        print("ANSWER " + json.dumps(answer(json.loads(line), processor, model, clock)), flush=True)


if __name__ == "__main__":
    main()
