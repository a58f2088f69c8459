"""Many pictures at once, on asyncio: each is a request of its own, and the engine computes them together.

python batch_captions.py models/tiny-cards models/tiny-cards/samples/*.png
"""

import asyncio
import sys

import idefics


async def describe(engine, picture):
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe the image."}]
    request = idefics.Request([{"role": "user", "content": parts}], sampling=engine.default_sampling)
    return "".join([event.text async for event in engine.stream(request)])


async def main(folder, *pictures):
    engine = idefics.Engine(folder)
    texts = await asyncio.gather(*[describe(engine, picture) for picture in pictures])
    for picture, text in zip(pictures, texts):
        print(f"{picture}:{text}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
