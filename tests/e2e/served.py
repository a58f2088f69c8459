"""What scripts that drive a client against idefics serve share: the server, checks, and the words of the command line."""

import pathlib
import re
import subprocess
import sys
import threading
import time

program, model = sys.argv[1], pathlib.Path(sys.argv[2])
checks = 0


def check(condition, what):
    """Ends the script with 1 at the first fault."""
    global checks
    checks += 1
    if not condition:
        print(f"FAILED: {what}")
        sys.exit(1)


def wait_for(condition, seconds=10):
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Server:
    """Runs inside `with`; ends in order, with 0, or that is a fault."""

    def __init__(self, *more, key=None):
        command = [program, "serve", str(model), "--port", "0", *more]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=key and {"IDEFICS_API_KEY": key})
        self.log, self.url = [], None
        for line in self.process.stderr:
            found = re.search(r"listening url=(\S+)", line)
            self.url = found.group(1) if found else self.url
            if " ready model=" in line:
                break
        else:
            raise SystemExit("the server did not start")
        # Whoever does not read a pipe blocks the one who writes to it.
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        code = self.process.wait(40)
        self.reader.join(10)
        if kind is None:
            check(code == 0, f"it ends in order, not with {code}")
