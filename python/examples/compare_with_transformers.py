"""The same prompt through transformers and through idefics: ids, features, logits of every position, greedy tokens.

Needs torch, transformers 5 and Pillow. Pictures are resized by Pillow on both sides; transformers would take torchvision
where it is installed, whose pixels differ by a grey level or two.

python compare_with_transformers.py models/tiny-cards models/tiny-cards/samples/01.png "What colour is the circle?"
"""

import sys

import idefics
import numpy as np
import torch
import transformers
from PIL import Image


def ours(folder, picture, question, steps):
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    tokenizer = idefics.Idefics3Tokenizer.load(folder)
    model = idefics.Idefics3Model.load(folder, idefics.ReturnLogits.ALL, dtype=idefics.DType.float32)
    context = tokenizer.new_context(idefics.TextGenerationRequest(messages=[{"role": "user", "content": parts}]))
    kv = idefics.PagedKVCacheManager(model.config.get_kv_params(), (len(context.tokens) + steps) // 128 + 1)
    kv.claim(context)
    ids, logits, greedy = context.tokens.all, None, []
    for _ in range(steps):
        kv.alloc(context)
        outputs = model.execute(model.prepare_initial_token_inputs([[context]], kv.runtime_inputs([context])))
        logits = outputs.logits if logits is None else logits
        greedy.append(int(outputs.next_token_logits[0].argmax()))
        context.update(greedy[-1])
    return ids, logits, greedy


def theirs(folder, picture, question, steps):
    processor = transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=prompt, images=[Image.open(picture)], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        logits = model(**inputs).logits[0].numpy()
        generated = model.generate(**inputs, max_new_tokens=steps, do_sample=False)
    ids = inputs["input_ids"][0].numpy()
    return ids, logits, generated[0, len(ids) :].tolist()


def main(folder, picture, question, steps=8):
    a, b = ours(folder, picture, question, steps), theirs(folder, picture, question, steps)
    same_ids = np.array_equal(a[0], b[0])
    print(f"ids: {len(a[0])}, {'equal' if same_ids else 'different'}")
    worst = np.abs(a[1] - b[1]).max() / max(1.0, np.abs(b[1]).max()) if same_ids else np.inf
    print(f"logits: largest difference {worst:.2e} of the largest value")
    same_tokens = len(b[2]) > 0 and a[2][: len(b[2])] == b[2]  # theirs end with the answer
    print(f"greedy tokens: {'equal' if same_tokens else 'different'}: {a[2]} {b[2]}")
    return 0 if same_ids and worst < 1e-5 and same_tokens else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
