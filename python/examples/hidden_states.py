"""Features of a picture and an instruction, as the head of a robot's policy reads them: hidden states, no text.

python hidden_states.py models/tiny-cards models/tiny-cards/samples/01.png "Pick up the circle."
"""

import sys

import idefics
import numpy as np


def main(folder, picture, instruction):
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": instruction}]
    tokenizer = idefics.Idefics3Tokenizer.load(folder)
    context = tokenizer.new_context(idefics.TextGenerationRequest(messages=[{"role": "user", "content": parts}]))

    # The middle layer and the last one.
    num_layers = idefics.Idefics3Config.get_num_layers(idefics.HuggingFaceConfig.load(folder))
    layers = [num_layers // 2, num_layers]
    model = idefics.Idefics3Model.load(
        folder, return_hidden_states=idefics.ReturnHiddenStates.SELECTED_LAYERS, hidden_state_layers=layers
    )
    kv = idefics.PagedKVCacheManager(model.config.get_kv_params(), len(context.tokens) // 128 + 1)
    kv.claim(context)
    kv.alloc(context)
    outputs = model.execute(model.prepare_initial_token_inputs([[context]], kv.runtime_inputs([context])))

    for layer, states in zip(layers, outputs.hidden_states):  # [T, E], NumPy
        feature = states[-1]
        first = " ".join(f"{x:.4f}" for x in feature[:3])
        print(
            f"layer {layer}: {feature.size} features of {len(states)} tokens, "
            f"norm {np.linalg.norm(feature):.3f}, first {first}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
