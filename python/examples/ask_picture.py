"""A picture and a question in, the answer out.

python ask_picture.py models/tiny-cards models/tiny-cards/samples/01.png "What colour is the circle?"
"""

import sys

import idefics


def main(folder, picture, question):
    engine = idefics.Engine(folder)
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    request = idefics.Request([{"role": "user", "content": parts}], sampling=engine.default_sampling)
    engine.generate(request, on_text=lambda delta: print(delta, end="", flush=True))
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
