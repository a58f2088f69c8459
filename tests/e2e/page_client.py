"""The web page in a real browser against idefics serve: python3 page_client.py PROGRAM MODEL [FOLDER FOR PICTURES].

Ends with 1 and a line at the first fault. What the page shows is left in the folder as page-*.png.
"""

import base64
import json
import pathlib
import re
import signal
import sys

from browser import ALT, CTRL, SHIFT, Browser
from served import Server, check, model
import served

pictures = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else ".").resolve()
card, other_card = (model.resolve() / "samples" / name for name in ["06.png", "01.png"])

# Notes what happens in each page from its first moment on: how each answer grows, and what the policy forbids.
WATCH = """
window.seen = {lengths: [], forbidden: [], status: new Set()};
document.addEventListener("securitypolicyviolation", (e) => seen.forbidden.push(e.violatedDirective + " " + e.blockedURI));
document.addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  const answers = document.querySelectorAll(".turn.assistant .text");
  if (answers.length) seen.lengths.push(answers[answers.length - 1].textContent.length);
  seen.status.add(document.getElementById("status").textContent);
}).observe(document.body, {subtree: true, childList: true, characterData: true}));
"""
# The least contrast of a text with what is behind it.
CONTRAST = """(() => {
  const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { while (e && /, 0\\)$|transparent/.test(getComputedStyle(e).backgroundColor)) e = e.parentElement;
                          return getComputedStyle(e ?? document.documentElement).backgroundColor; };
  let least = [99, ""];
  for (const e of document.body.querySelectorAll("*")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < least[0]) least = [(a + .05) / (b + .05), e.outerHTML];
  }
  return least;
})()"""


class Page(Browser):
    """The browser with what all pages are watched for. `fake` answers the next question in place of the server."""

    def __enter__(self):
        super().__enter__()
        self.requests, self.complaints, self.fake, self.chooser = [], [], None, None
        note = lambda kind: lambda event: self.complaints.append(f"{kind}: {json.dumps(event)}")
        self.handlers = {
            "Network.requestWillBeSent": lambda e: self.requests.append(e["request"]["url"]),
            "Runtime.exceptionThrown": note("exception"), "Runtime.consoleAPICalled": note("console"),
            "Log.entryAdded": note("log"), "Audits.issueAdded": note("issue"),
            "Fetch.requestPaused": lambda e: self.fake(e), "Page.fileChooserOpened": lambda e: setattr(self, "chooser", e)}
        for domain in ["Page", "Runtime", "Network", "Log", "Audits", "DOM", "Accessibility"]:
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        self.size(1100, 760)
        return self

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def colours(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def visit(self, url):
        self.open(url)
        self.wait("document.getElementById('model').textContent.startsWith('tiny-cards, ')")

    def choose(self, path):
        """The file of the chooser that was opened."""
        self.wait("true")
        while self.chooser is None:
            self.pump(1)
        self.call("DOM.setFileInputFiles", files=[str(path)], backendNodeId=self.chooser["backendNodeId"])
        self.chooser = None

    def pictures_shown(self, count):
        self.wait(f"document.querySelectorAll('#picture-list img').length === {count}"
                  " && [...document.querySelectorAll('#picture-list img')].every((i) => i.naturalWidth > 0)")

    def ask(self, question):
        """By the keyboard. The text and the facts of the answer."""
        self.js("document.getElementById('question').focus(); seen.lengths = []")
        self.type(question)
        self.press("Enter")
        self.wait("!document.querySelector('.writing') && document.getElementById('stop').hidden")
        return self.last_turn()

    def last_turn(self):
        return self.js("['.text', '.facts'].map((c) => document.querySelector(`.turn:last-child ${c}`).textContent)")

    def instead(self, answer):
        """The next question is given to `answer`, with the paused request, and does not reach the server unless it says so."""
        def once(event):
            self.fake = lambda e: self.send("Fetch.continueRequest", requestId=e["requestId"])
            answer(event["requestId"], event["request"])
        self.fake = once
        self.call("Fetch.enable", patterns=[{"urlPattern": "*/v1/chat/completions"}])

    def answer_with(self, body, status=200, kind="text/event-stream"):
        self.instead(lambda number, _: self.send(
            "Fetch.fulfillRequest", requestId=number, responseCode=status, body=base64.b64encode(body.encode()).decode(),
            responseHeaders=[{"name": "content-type", "value": kind}]))

    def focus(self):
        return self.js("document.activeElement.id || document.activeElement.tagName")

    def check_quiet(self):
        """Nothing was asked of another host, the policy forbade nothing, the console is empty."""
        self.js("1")
        hosts = {r.split("/")[2] for r in self.requests if not r.startswith(("data:", "blob:"))}
        check(hosts == {self.js("location.host")}, f"asked other hosts: {hosts}")
        check(self.js("seen.forbidden") == [], "the policy forbids nothing of the page's own")
        check(self.complaints == [], self.complaints)


def chunk(text, **more):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}, **more}]}) + "\n\n"


def asks_about_pictures(page):
    page.visit(server.url)
    page.drop("#drop", card)
    page.pictures_shown(1)
    check("06.png, " in page.text("#picture-list"), "a dropped picture has its name and size")
    text, facts = page.ask("How many shapes are there?")
    check(text == "There are three shapes.", text)
    for fact in ["5 tiles (80 tokens)", "prompt 111 tokens", "answer 7 tokens", "first after"]:
        check(fact in facts, f"wanted {fact}; found {facts}")
    check("cached" not in facts, facts)
    lengths = page.js("[...new Set(seen.lengths)]")
    check(len(lengths) >= 4 and lengths == sorted(lengths), f"the text grows: {lengths}")
    text, _ = page.ask("What colour is the circle?")
    check(text == "The circle is brown.", text)
    _, facts = page.ask("Describe the image.")
    check(re.search(r"prompt \d+ tokens \(128 cached\)", facts), f"a question about the same picture finds what was computed: {facts}")
    page.screenshot(pictures / "page-light.png")

    page.click("#picture-list button")
    page.pictures_shown(0)
    check(page.text("#log") == "", "without its picture a conversation is over")
    page.js("document.getElementById('drop').focus()")
    page.press("Enter")
    page.choose(other_card)
    page.pictures_shown(1)
    text, _ = page.ask("What colour is the circle?")
    check(text == "The circle is gray.", text)
    page.press("n", ALT)
    page.pictures_shown(0)

    page.call("Browser.grantPermissions", origin=server.url, permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    data = base64.b64encode(card.read_bytes()).decode()
    page.js(f"""(async () => {{
        const bytes = Uint8Array.from(atob("{data}"), (c) => c.charCodeAt(0));
        await navigator.clipboard.write([new ClipboardItem({{"image/png": new Blob([bytes], {{type: "image/png"}})}})]); }})()""")
    page.press("v", CTRL, ["paste"])
    page.pictures_shown(1)
    text, _ = page.ask("How many shapes are there?")
    check(text == "There are three shapes.", text)
    page.check_quiet()


def stops(page, how):
    page.visit(server.url)
    before = len(server.log)

    def long(number, request):
        body = {**json.loads(request["postData"]), "ignore_eos": True, "max_tokens": 1900, "n": 4, "logprobs": True,
                "top_logprobs": 20}
        page.send("Fetch.continueRequest", requestId=number, postData=base64.b64encode(json.dumps(body).encode()).decode())

    page.instead(long)
    page.js("document.getElementById('question').focus()")
    page.type("Hi")
    page.press("Enter")
    page.wait("document.querySelector('.assistant .text')?.textContent.length > 20")
    # However quick the server and slow the browser: the answer does not end before it is stopped.
    server.process.send_signal(signal.SIGSTOP)
    try:
        check(page.js("!document.getElementById('stop').hidden && document.getElementById('ask').hidden"), "it can be stopped")
        how()
        page.wait("!document.querySelector('.writing') && !document.getElementById('ask').hidden")
    finally:
        server.process.send_signal(signal.SIGCONT)
    text, facts = page.last_turn()
    check(len(text) > 20 and facts == "stopped", f"{text}: {facts}")
    check(page.focus() == "question", "one can go on asking")
    ended = lambda: [line for line in server.log[before:] if "/v1/chat/completions" in line]
    check(served.wait_for(ended) and "status=0 " in ended()[0], f"a stopped request ends in the server: {server.log[before:]}")
    page.call("Fetch.disable")
    _, facts = page.ask("Hi")
    check("answer " in facts, f"the next question is answered: {facts}")
    page.check_quiet()


def works_by_keyboard_alone(page):
    page.visit(server.url)
    check(page.focus() == "question", "one can write at once")
    order = []
    for _ in range(7):
        page.press("Tab")
        order.append(page.focus())
    check(order == ["ask", "BODY", "new", "SUMMARY", "drop", "log", "question"], order)
    ring = page.js("getComputedStyle(document.activeElement).outlineStyle")
    check(ring != "none", "what has the focus is seen")
    page.press("Tab", SHIFT)
    check(page.focus() == "log", "and backwards")
    page.js("document.querySelector('summary').focus()")
    page.press("Enter")
    page.wait("document.getElementById('settings').open")
    page.press("Tab")
    check(page.focus() == "max-tokens", page.focus())
    page.press("Escape")
    page.wait("!document.getElementById('settings').open")
    check(page.focus() == "SUMMARY", page.focus())
    page.js("document.getElementById('question').focus()")
    page.type("one")
    page.press("Enter", SHIFT)
    page.type("two")
    check(page.js("document.getElementById('question').value") == "one\ntwo", "Shift+Enter begins a line")
    page.js("document.getElementById('question').value = ''")
    page.press("Enter")
    check(page.text("#log") == "", "nothing is not sent")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = lambda node: node.get("name", {}).get("value", "").strip()
    reached = [n for n in nodes if not n["ignored"] and n.get("role", {}).get("value") not in ("RootWebArea", "generic")
               and any(p["name"] == "focusable" and p["value"]["value"] for p in n.get("properties", []))]
    nameless = [n["role"]["value"] for n in reached if not named(n)]
    check(len(reached) >= 6 and not nameless, f"all of {len(reached)} that can be reached have names but {nameless}")
    page.check_quiet()


def shows_text_and_never_markup(page):
    page.visit(server.url)
    evil = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'><b>bold</b> [a](javascript:hit=3)"
    page.answer_with("".join(chunk(c) for c in evil) + chunk("", finish_reason="stop") + "data: [DONE]\n\n")
    text, _ = page.ask(evil)
    check(text == evil, text)
    check(page.js("document.querySelectorAll('#log :is(script, img, b, a)').length") == 0, "no element is made of it")
    check(page.js("typeof window.hit") == "undefined", "and none of it ran")
    message = "<img src=x onerror='window.hit = 4'> is wrong"
    page.answer_with(json.dumps({"error": {"message": message}}), 400, "application/json")
    check(page.ask("?")[0] == message, "an error is text as well")
    check(page.js("typeof window.hit") == "undefined" and not page.js("document.querySelector('#log img')"), "it did not run")
    page.complaints = [c for c in page.complaints if "status of 400" not in c]
    page.check_quiet()

    # The same policy and the same watching, when there is something to forbid.
    page.js("""document.body.append(Object.assign(document.createElement("script"), {textContent: "window.hit = 5"}));
               document.body.append(Object.assign(document.createElement("img"), {src: "http://127.0.0.2:1/x.png"}));
               fetch("http://127.0.0.2:1/").catch(() => {})""")
    page.wait("seen.forbidden.length === 3")
    check(page.js("typeof window.hit") == "undefined", "a script in the page does not run")
    check(page.complaints != [], "what the policy forbids is noticed by this test")


def tells_what_went_wrong(page):
    page.visit(server.url)
    for body, status, kind, wanted in [
            ("<h1>Bad gateway</h1>", 502, "text/html", "status 502"),
            (chunk("half an ans"), 200, "text/event-stream", "half an ans\nthe connection was lost"),
            (chunk("half") + 'data: {"error": {"message": "the engine is on fire"}}\n\n', 200, "text/event-stream",
             "half\nthe engine is on fire")]:
        page.answer_with(body, status, kind)
        text, _ = page.ask("Hi")
        check(wanted in text, text)
        check(page.js("document.querySelector('.turn:last-child').classList.contains('bad')"), "and it is seen to be an error")
    page.call("Fetch.disable")
    page.js("document.getElementById('temperature').value = 7")
    text, _ = page.ask("Hi")
    check("temperature is 7" in text, text)
    page.js("document.getElementById('temperature').value = 0")
    broken = pictures / "broken.png"
    broken.write_bytes(card.read_bytes()[:200])
    page.js("document.getElementById('drop').focus()")
    page.press(" ")
    page.choose(broken)
    page.wait("document.querySelectorAll('#picture-list img').length === 1")
    text, _ = page.ask("What is it?")
    check("image" in text and "messages" not in text, text)
    page.press("n", ALT)
    page.drop("#drop", pathlib.Path(__file__))
    check("not a picture" in page.wait("document.getElementById('status').textContent"), page.text("#status"))


def has_dark_and_narrow_forms(page):
    page.colours("dark")
    page.visit(server.url)
    page.drop("#drop", card)
    page.pictures_shown(1)
    page.ask("How many shapes are there?")
    page.answer_with(json.dumps({"error": {"message": "the prompt is too long"}}), 400, "application/json")
    page.ask("And what else?")
    page.call("Fetch.disable")
    page.js("document.getElementById('settings').open = true")
    for scheme in ["dark", "light"]:
        page.colours(scheme)
        bright = page.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((v) => v > 200)")
        check(bright == (scheme == "light"), f"{scheme} is {scheme}")
        least = page.js(CONTRAST)
        check(least[0] >= 4.5, f"{scheme}: {least}")
    page.colours("dark")
    page.screenshot(pictures / "page-dark.png")
    page.colours("light")
    page.size(360, 740, mobile=True)
    for open in ["true", "false"]:
        page.js(f"document.getElementById('settings').open = {open}")
        widest = page.js("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth,"
                         " ...[...document.querySelectorAll('body *')].map((e) => e.getBoundingClientRect().right))")
        check(widest <= 360, f"360 pixels are enough, settings {open}: {widest}")
        page.screenshot(pictures / f"page-narrow{'-settings' if open == 'true' else ''}.png")
    check(page.js("document.getElementById('question').getBoundingClientRect().bottom <= innerHeight"), "one can ask at once")


def wants_a_key(page, url):
    page.open(url)
    said = page.wait("document.getElementById('model').classList.contains('bad') && document.getElementById('model').textContent")
    check("wants an API key" in said, said)
    check(page.focus() == "key" and page.js("document.getElementById('key').type") == "password", "where the key goes, unseen")
    page.screenshot(pictures / "page-key.png")
    page.press("Escape")
    text, _ = page.ask("Hi")
    check("valid API key" in text and page.focus() == "key", text)
    page.type("another")
    page.press("Enter")
    page.wait("document.activeElement.id === 'key' && document.getElementById('settings').open")
    page.js("document.activeElement.select()")
    page.type("the-key")
    page.press("Enter")
    page.wait("document.getElementById('model').textContent.startsWith('tiny-cards, ')")
    check(page.wait("document.activeElement.id === 'question'"), "one can ask at once")
    page.ask("Hi")
    check(not page.js("document.querySelector('.turn:last-child').classList.contains('bad')"), page.last_turn())
    check(not any("the-key" in r for r in page.requests), "the key stands in no URL")


with Server() as server:
    with Page() as page:
        asks_about_pictures(page)
    with Page() as page:
        stops(page, lambda: page.press("Escape"))
        stops(page, lambda: page.click("#stop"))
        works_by_keyboard_alone(page)
    with Page() as page:
        shows_text_and_never_markup(page)
        tells_what_went_wrong(page)
        has_dark_and_narrow_forms(page)
with Server(key="the-key") as server, Page() as page:
    wants_a_key(page, server.url)
print(f"{served.checks} checks passed; what was seen is in {pictures}/page-*.png")
