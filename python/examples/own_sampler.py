"""A loop of one's own over Idefics3Model: the program sees the logits of every step and chooses each token itself.

python own_sampler.py models/tiny-cards models/tiny-cards/samples/01.png "What colour is the circle?"
"""

import sys

import idefics
import numpy as np


def main(folder, picture, question):
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    tokenizer = idefics.Idefics3Tokenizer.load(folder)
    model = idefics.Idefics3Model.load(folder)
    context = tokenizer.new_context(idefics.TextGenerationRequest(messages=[{"role": "user", "content": parts}]))

    kv = idefics.PagedKVCacheManager(model.config.get_kv_params(), -(-context.max_length // 128))
    kv.claim(context)
    certainty = 1.0
    while len(context.tokens) < context.max_length:
        kv.alloc(context)
        inputs = model.prepare_initial_token_inputs([[context]], kv.runtime_inputs([context]))
        logits = model.execute(inputs).logits[0]
        best = int(logits.argmax())
        certainty = min(certainty, 1 / np.exp(logits - logits[best]).sum())
        if best in context.eos_token_ids:
            break
        context.update(best)
    print(tokenizer.decode(context.tokens.generated.tolist()))
    print(f"least certain token: {certainty:.3f}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
