"""monitoring.py PROGRAM MODEL PROMTOOL: what packaging/ has for Prometheus and Grafana, against a live /metrics.

promtool checks the metrics and the rules. Every metric and label that the dashboard and the rules ask for must be
served, and every expression of the dashboard must be one that Prometheus reads.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What Prometheus adds to every series, or makes itself.
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job"}


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=60).read()
    except urllib.error.HTTPError as error:
        error.read()


def live_metrics(program, model):
    with tempfile.NamedTemporaryFile("r") as log:
        server = subprocess.Popen([program, "serve", model, "--port", "0"], stderr=open(log.name, "w"))
        try:
            for _ in range(600):
                text = pathlib.Path(log.name).read_text()
                if " ready model=" in text or server.poll() is not None:
                    break
                time.sleep(0.1)
            url = re.search(r"listening url=(\S+)", text)[1]
            post(url + "/v1/completions", {"prompt": "The", "max_tokens": 8, "ignore_eos": True})
            post(url + "/v1/completions", {"prompt": "The", "max_tokens": -1})
            return urllib.request.urlopen(url + "/metrics", timeout=60).read().decode()
        finally:
            server.kill()
            server.wait()


def promtool(*arguments, input=None):
    done = subprocess.run([sys.argv[3], *map(str, arguments)], input=input, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def check(good, what):
    if not good:
        sys.exit(f"failed: {what}")
    print(f"ok: {what}")


def served_names(metrics):
    """Names of the series, and the labels of each."""
    labels = {}
    for line in metrics.splitlines():
        if line.startswith("#"):
            continue
        name, of_it = re.match(r"([\w:]+)(?:\{(.*)\})? ", line).groups()
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', of_it or ""))
    return labels


def strip_texts(expression):
    return re.sub(r'"[^"]*"', '""', expression)


def check_names(expression, served):
    """The metrics of an expression are served, with the labels that it chooses or groups by."""
    plain = strip_texts(expression)
    names = set(re.findall(r"\b(?:vllm|idefics):\w+", plain)) | (OF_PROMETHEUS & set(re.findall(r"\w+", plain)))
    unknown = names - served.keys() - OF_PROMETHEUS
    if not names or unknown:
        sys.exit(f"failed: {expression}: not served: {unknown or 'no metric in it'}")
    known = LABELS_OF_PROMETHEUS.union(*(served.get(name, set()) for name in names))
    wanted = {label for group in re.findall(r"\bby \(([^)]*)\)", plain) for label in re.findall(r"\w+", group)}
    wanted |= set(re.findall(r'(\w+)=~?""', plain))
    if wanted - known:
        sys.exit(f"failed: {expression}: no such labels: {wanted - known}")
    return names


def expressions_of(dashboard):
    """Those of the panels, and those inside label_values() of the variables."""
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = []
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        expression, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        variables.append(f"count by ({label}) ({expression})")
    return panels, variables


def read_by_prometheus(expressions):
    """promtool reads expressions as those of recording rules."""
    rules = [{"record": f"e{i}", "expr": e.replace("$__rate_interval", "5m")} for i, e in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
        file.flush()
        return promtool("check", "rules", file.name)


def main():
    metrics = live_metrics(sys.argv[1], sys.argv[2])
    served = served_names(metrics)

    code, text = promtool("check", "metrics", input=metrics)
    complaints = [line for line in text.splitlines() if line]
    # vLLM's names, which others' dashboards ask for, have a colon; that is all that promtool may say.
    others = [line for line in complaints if not line.endswith(" metric names should not contain ':'")]
    check(code == 3 and not others, f"promtool check metrics reads {len(served)} series {others}")

    dashboard = json.loads((ROOT / "packaging/grafana/idefics.json").read_text())
    panels, variables = expressions_of(dashboard)
    asked = set().union(*(check_names(expression, served) for expression in panels + variables))
    check(True, f"the dashboard's {len(panels)} expressions ask for {len(asked)} series, all served")
    code, text = read_by_prometheus(panels + variables)
    check(code == 0, f"Prometheus reads the dashboard's expressions {text}")

    rules = ROOT / "packaging/prometheus/idefics.rules.yml"
    code, text = promtool("check", "rules", rules)
    check(code == 0 and "rules found" in text, f"promtool check rules {text.strip()}")
    alerts = re.findall(r"expr: (?:>\n)?(.*?)\n +(?:for|annotations):", rules.read_text(), re.DOTALL)
    check(len(alerts) == int(re.search(r"(\d+) rules found", text)[1]), "every rule is looked at")
    for alert in alerts:
        check_names(re.sub(r"#.*", "", alert), served)
    code, text = promtool("test", "rules", pathlib.Path(__file__).with_name("rules_test.yml"))
    check(code == 0, f"the alerts fire when they should {text.strip()}")


main()
