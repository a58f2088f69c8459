"""Schemathesis against idefics serve: requests made from /openapi.json, right and wrong ones, and all its checks on the
responses: python schemathesis_client.py PROGRAM MODEL [EXAMPLES]."""

import pathlib
import re
import subprocess
import sys
import tempfile

from served import Server, check
import served

examples = sys.argv[3] if len(sys.argv) > 3 else "10"
# Short answers: what is held to the document are statuses, types and bodies.
with Server("--max-model-len", "256") as server, tempfile.TemporaryDirectory() as folder:
    result = subprocess.run(
        [pathlib.Path(sys.executable).with_name("schemathesis"), "run", server.url + "/openapi.json", "--checks", "all",
         # Which ids are tokens and how long a prompt may be depends on the model, not on the document.
         "--exclude-checks", "positive_data_acceptance",
         "--phases", "coverage,fuzzing", "-n", examples, "--seed", "1", "--request-timeout", "60", "--no-color"],
        cwd=folder, capture_output=True, text=True)
    check(result.returncode == 0, result.stdout + result.stderr)
    bad = [line for line in server.log if " status=5" in line]
    check(not bad, bad)
print(re.search(r"\d+ generated, .*", result.stdout).group())
