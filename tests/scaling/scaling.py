"""scaling.py PROGRAM MODEL haproxy|vllm-router COMMAND...: two replicas behind a router, on this machine.

COMMAND starts the router; {one} and {two} stand for the ports of the replicas, {port} for the router's. Looks at what
docs/scaling.md promises: conversations stay where they are, a drain loses no request, a killed replica loses none
without an error, and tokens go on when they come. The gaps of tokens are printed.
"""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 60  # seconds


class Replica:
    """One `idefics serve`; its log says which requests it had."""

    def __init__(self, program, model, port=0):
        self.log = tempfile.NamedTemporaryFile(prefix="idefics-replica-")
        self.process = subprocess.Popen(
            [program, "serve", model, "--port", str(port), "--threads", "1", "--log-format", "json",
             "--drain-delay", "3"], stderr=self.log)
        self.port = None
        wait(lambda: self._find("ready"), "a replica is ready")
        self.port = int(self._find("listening")["url"].rsplit(":", 1)[1])

    def lines(self):
        with open(self.log.name) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def _find(self, event):
        if self.process.poll() is not None:
            sys.exit("a replica ended: " + open(self.log.name).read())
        return next((line for line in self.lines() if line["event"] == event), None)

    def ids(self):
        return {line["id"] for line in self.lines() if line["event"] == "request"}

    def end(self):
        self.process.kill()
        self.process.wait()


def wait(condition, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"not in {PATIENCE} s: {what}")


class Reply:
    """What came of a request. `error` is empty for a complete answer."""

    def __init__(self):
        self.status, self.headers, self.text, self.error, self.gaps = 0, {}, "", "", []
        self.start = time.monotonic()


def ask(port, id, tokens=16, stream=False, session=None, padding=0, reply=None, more={}):
    reply = reply or Reply()
    body = {"prompt": "The", "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": stream,
            "padding": "x" * padding, **more}
    headers = {"content-type": "application/json", "x-request-id": id}
    if session:
        headers["x-session-id"] = session
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        reply.status = response.status
        reply.headers = {key.lower(): value for key, value in response.getheaders()}
        if response.status != 200:
            reply.error = f"{response.status} {response.read()[:200]}"
        elif stream:
            read_stream(response, reply)
        else:
            reply.text = json.loads(response.read())["choices"][0]["text"]
    except TimeoutError:
        reply.error = "hangs"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reply.error = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return reply


def read_stream(response, reply):
    last = None
    while line := response.readline():
        if line == b"data: [DONE]\n":
            response.read()  # to the end of the last chunk
            return
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            reply.error = str(event["error"])
            return
        if not event["choices"]:
            continue
        now = time.monotonic()
        if last is not None:
            reply.gaps.append(now - last)
        last = now
        reply.text += event["choices"][0]["text"]
    reply.error = "the stream ends without [DONE]"


class Load:
    """Requests of all kinds from several threads, one after the other on each, until it is stopped."""

    def __init__(self, port, name):
        self.port, self.name, self.replies, self.running = port, name, {}, True
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(4)]
        for thread in self.threads:
            thread.start()

    def _run(self, thread):
        count = 0
        while self.running:
            id = f"{self.name}-{thread}-{count}"
            self.replies[id] = ask(self.port, id, tokens=40, stream=count % 2 == 0,
                                   session=f"s{count % 7}" if count % 3 == 0 else None,
                                   padding=60_000 if count % 5 == 0 else 0)
            count += 1

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join()
        return self.replies


def check(good, what):
    if not good:
        sys.exit(f"failed: {what}")
    print(f"ok: {what}", flush=True)


def conversations_stay(port, replicas):
    for session in range(12):
        for turn in range(3):
            reply = ask(port, f"session-{session}-{turn}", session=f"conversation {session}")
            check_quietly(not reply.error, reply.error)
    wait(lambda: sum(sum(id.startswith("session-") for id in r.ids()) for r in replicas) == 36, "36 lines of the logs")
    owners = [[[i for i, r in enumerate(replicas) if f"session-{s}-{t}" in r.ids()] for t in range(3)]
              for s in range(12)]
    check(all(turns[0] == turns[1] == turns[2] and len(turns[0]) == 1 for turns in owners),
          "the turns of a conversation come to one replica")
    check(len({turns[0][0] for turns in owners}) == 2, "conversations are spread over both replicas")


def check_quietly(good, what):
    if not good:
        sys.exit(f"failed: {what}")


def names_and_errors_pass(port):
    reply = ask(port, "name.of-a_request")
    check(reply.headers.get("x-request-id") == "name.of-a_request", "the reply has the client's x-request-id")
    wrong = ask(port, "wrong", more={"top_p": 7})
    check(wrong.status == 400 and "top_p" in wrong.error, "a wrong request gets the replica's own error")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def gaps_stay(name, port, replica):
    print(f"{'gap of tokens, ms':<20} {'median':>8} {'95 %':>8} {'most':>8}")
    medians, texts = {}, set()
    measured = {"direct": [], name: []}
    for round in range(8):  # by turns, so that a busy moment hits both
        for way, to in (("direct", replica.port), (name, port)):
            reply = ask(to, f"gaps-{way}-{round}", tokens=200, stream=True)
            check_quietly(not reply.error, reply.error)
            texts.add(reply.text)
            measured[way] += reply.gaps
    for way, gaps in measured.items():
        medians[way] = statistics.median(gaps)
        print(f"{way:<20} {1000 * medians[way]:8.2f} {1000 * percentile(gaps, 0.95):8.2f} {1000 * max(gaps):8.2f}")
    check(len(texts) == 1, "the streams are the same text")
    check(medians[name] < medians["direct"] + 0.005 and
          percentile(measured[name], 0.95) < percentile(measured["direct"], 0.95) + 0.02,
          "tokens go on when they come")


def cpu_seconds(pid):
    """Of all threads of a process, to the nanosecond."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def costs(pid, port):
    """What the router itself computes for a token, for a request, and for a large picture."""
    def spent(job, count):
        before = cpu_seconds(pid)
        for reply in job():
            check_quietly(not reply.error, reply.error)
        return (cpu_seconds(pid) - before) / count
    request = spent(lambda: [ask(port, f"cost-{i}", tokens=1) for i in range(200)], 200)
    token = spent(lambda: [ask(port, f"cost-token-{i}", tokens=1000, stream=True) for i in range(6)], 6000)
    page = spent(lambda: [ask(port, f"cost-page-{i}", tokens=1, padding=2_000_000) for i in range(20)], 20)
    print(f"CPU of the router: {1e6 * request:.0f} us a request, {1e6 * token:.1f} us a token of a stream, "
          f"{1e3 * (page - request):.2f} ms a body of 2 MB")


def drain_loses_nothing(port, replicas):
    load = Load(port, "drain")
    time.sleep(1.5)
    replicas[0].process.send_signal(signal.SIGTERM)
    check(replicas[0].process.wait(PATIENCE) == 0, "a drained replica ends with 0")
    time.sleep(1.5)
    replies = load.stop()
    bad = [f"{id}: {reply.error}" for id, reply in replies.items() if reply.error]
    check(not bad, f"a drain loses none of {len(replies)} requests {bad[:3]}")
    check(len(replicas[0].ids() & replies.keys()) > 0, "the drained one had some of them")


def comes_back(program, model, port, replicas):
    replicas[0] = Replica(program, model, replicas[0].port)
    count = iter(range(10_000))
    def seen():
        for _ in range(8):
            ask(port, f"back-{next(count)}")
        return any(id.startswith("back-") for id in replicas[0].ids())
    wait(seen, "a replica that was started again gets requests")
    print("ok: a replica that was started again gets requests", flush=True)


def kill_loses_nothing_silently(port, replicas):
    load = Load(port, "kill")
    time.sleep(1.5)
    # One that is certainly in the middle of its answer: the session of one that was there before.
    ask(port, "victim-0", session="victim")
    wait(lambda: any("victim-0" in replica.ids() for replica in replicas), "the victim's first turn is logged")
    victim = next(i for i, replica in enumerate(replicas) if "victim-0" in replica.ids())
    cut = Reply()
    thread = threading.Thread(target=ask, args=(port, "victim-1", 1900, True, "victim", 0, cut))
    thread.start()
    wait(lambda: len(cut.gaps) > 20, "the victim's stream has begun")
    replicas[victim].end()
    killed = time.monotonic()
    thread.join()
    check(cut.error and cut.error != "hangs", f"a stream that was cut off ends with an error ({cut.error[:60]})")
    time.sleep(6)
    replies = load.stop()
    bad = {id: reply for id, reply in replies.items() if reply.error}
    for id, reply in bad.items():
        print(f"   {id}: {reply.error[:100]}")
    check(all(reply.error != "hangs" for reply in bad.values()), f"nobody of {len(replies)} hangs when one is killed")
    check(len(bad) <= 8, f"{len(bad)} requests were told of an error")
    late = [id for id, reply in bad.items() if reply.start > killed + 3]
    check(not late, f"none that began 3 s later {late[:3]}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    program, model, name = sys.argv[1:4]
    replicas = [Replica(program, model) for _ in range(2)]
    port = free_port()
    places = {"one": replicas[0].port, "two": replicas[1].port, "port": port, "other": free_port()}
    command = [word.format(**places) for word in sys.argv[4:]]
    with tempfile.TemporaryFile() as log:
        router = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ, **{
            key.upper(): str(value) for key, value in places.items()}))
        try:
            wait(lambda: router.poll() is not None or not ask(port, "start").error, "the router answers")
            check_quietly(router.poll() is None, "the router ended")
            names_and_errors_pass(port)
            conversations_stay(port, replicas)
            gaps_stay(name, port, replicas[1])
            costs(router.pid, port)
            drain_loses_nothing(port, replicas)
            comes_back(program, model, port, replicas)
            kill_loses_nothing_silently(port, replicas)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-5000:])
            raise
        finally:
            router.kill()
            router.wait()
            for replica in replicas:
                replica.end()


main()
