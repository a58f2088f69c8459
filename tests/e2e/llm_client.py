"""The command llm against idefics serve, as a model of extra-openai-models.yaml: python llm_client.py PROGRAM MODEL."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from served import Server, check, model
import served

picture = model / "samples" / "06.png"
with Server() as server, tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / "extra-openai-models.yaml").write_text(
        f"- model_id: cards\n  model_name: tiny-cards\n  api_base: {server.url}/v1\n  vision: true\n  supports_schema: true\n")
    command = pathlib.Path(sys.executable).with_name("llm")

    def llm(*words, code=0):
        result = subprocess.run([command, "-m", "cards", *words, "--no-log"], env={**os.environ, "LLM_USER_PATH": folder},
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        check(result.returncode == code, f"{words}: {result}")
        return result.stdout if code == 0 else result.stderr

    streamed = llm("How many shapes are there?", "-a", str(picture))
    check(streamed.startswith(" There are ") and "shape" in streamed, streamed)
    check(llm("How many shapes are there?", "-a", str(picture), "--no-stream", "-o", "temperature", "0") == streamed, streamed)
    blind = llm("How many shapes are there?")
    check(blind != streamed, "the picture is seen")
    check(isinstance(json.loads(llm("How many?", "-a", str(picture), "--schema", "round bool"))["round"], bool), "a schema")
    refused = llm("Hi", "-o", "temperature", "1", "-o", "max_tokens", "0", code=1)
    check("max_" in refused and "wanted" in refused, refused)
print(f"{served.checks} checks passed")
