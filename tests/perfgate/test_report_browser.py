"""The page in a real browser, which has no network."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from perfgate.judge.parse import parse_run
from perfgate.report.page import page, policy
from tests.perfgate.runs import BY_STATUS, growth_data, histories, judged_document, judged_runs

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "x.py::test_x[</script><script>document.title='taken'</script>]"
# Loading 5 MB of plotly.js and drawing all plots takes some seconds of a busy core.
TIMEOUT_SECONDS = 120


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium")
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'kan-impls[report]'")
    return found


class Loaded(HTMLParser):
    """What the browser made of a page.

    Attributes:
        elements: tag and attributes of all elements.
        inside: id of a plot's place to the classes of the elements in it.
        texts: id of an element to its text.
        errors: what the browser's console says.
        requested: addresses that the page asked for, but for its own.
    """

    def __init__(self, text, log, net_log):
        super().__init__()
        self.elements, self.inside, self.texts, self._ids = [], {}, {}, []
        self.feed(text)
        self.errors = re.findall(r"CONSOLE:\d+\] (.*)", log)
        started = (event.get("params", {}) for event in net_log["events"])
        self.requested = [
            params["url"]
            for params in started
            # The browser itself asks for updates; a page is an origin.
            if params.get("initiator", "not an origin") != "not an origin"
            and not params["url"].startswith(("file:", "data:", "blob:"))
        ]

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.append((tag, found))
        for key in self._ids:
            self.inside.setdefault(key, []).extend((found.get("class") or "").split())
        if tag not in ("meta", "input", "br", "link", "img"):
            self._ids.append(found.get("id"))

    def handle_endtag(self, tag):
        if self._ids:
            self._ids.pop()

    def handle_data(self, data):
        for key in filter(None, self._ids):
            self.texts[key] = self.texts.get(key, "") + data


def load(browser, tmp_path, text, hash_="", flags=()):
    file, net_log = tmp_path / "report.html", tmp_path / "net.json"
    file.write_text(text, encoding="utf-8")
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        f"--log-net-log={net_log}",
        "--virtual-time-budget=10000",
        *flags,
        "--dump-dom",
        f"{file.as_uri()}{hash_}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return Loaded(done.stdout, done.stderr, json.loads(net_log.read_text(encoding="utf-8")))


def whole_page():
    """A page with every kind of plot, and with a name that tries to end a script."""
    before, now = judged_runs()
    growing = growth_data()["benchmarks"]
    for data in (before, now):
        data["benchmarks"] += growing
        data["benchmarks"].append({**growing[0], "fullname": HOSTILE})
    history = [*histories(), parse_run(before)]
    return page(judged_document(now=now, before=before), history)


def rows(loaded):
    """Status of each row of the verdicts to whether it is shown."""
    return [
        (attributes["data-status"], "hidden" not in attributes)
        for tag, attributes in loaded.elements
        if tag == "tr" and "data-status" in attributes
    ]


def test_plots_are_drawn_the_filter_works_and_nothing_is_asked_for(browser, tmp_path):
    loaded = load(browser, tmp_path, whole_page(), "#status=regressed,missing")
    assert loaded.errors == []
    assert loaded.requested == []

    drawn = json.loads(loaded.texts["plot-data"])
    history = json.loads(
        loaded.texts[next(key for key in loaded.texts if key.startswith("choice-"))]
    )
    place = next(a["data-place"] for tag, a in loaded.elements if "data-place" in a)
    assert len(drawn) == 2 * 3 + 4 * 6  # cases, and growing series
    for key, plot in {**drawn, place: history[0]}.items():
        assert loaded.inside[key].count("trace") == len(plot["data"]), key
        assert "main-svg" in loaded.inside[key]

    shown = rows(loaded)
    assert {status for status, visible in shown if visible} == {"regressed", "missing"}
    assert {status for status, visible in shown if not visible} >= {"unchanged", "improved"}
    pressed = {
        attributes["data-status"]: attributes["aria-pressed"]
        for tag, attributes in loaded.elements
        if tag == "button" and "data-status" in attributes
    }
    assert pressed["regressed"] == pressed["missing"] == "true"
    assert pressed["unchanged"] == "false"
    assert loaded.texts["count"] == f"2 of {len(shown)} shown"
    assert all("hidden" not in a for _, a in loaded.elements if a.get("id") == "controls")


ACTIONS = """{
const after = {};
const shown = () => rows.filter((row) => !row.hidden).map((row) => row.dataset.status);
const order = (table) => Array.from(document.querySelectorAll(`#${table} tbody tr`),
  (row) => row.children[2].textContent);
const press = (status) => document.querySelector(`button[data-status="${status}"]`).click();
press("improved"); after.one = shown(); after.hash = location.hash;
press("regressed"); after.two = shown();
press("improved"); press("regressed"); after.none = shown().length;
search.value = "EFFICIENT"; search.dispatchEvent(new Event("input")); after.found = shown();
search.value = ""; search.dispatchEvent(new Event("input"));
const header = document.querySelectorAll("#verdict-table thead th")[2];
header.querySelector("button").click(); after.up = order("verdict-table");
after.sort = header.getAttribute("aria-sort");
header.querySelector("button").click(); after.down = order("verdict-table");
const select = document.querySelector("select");
select.selectedIndex = select.options.length - 1; select.dispatchEvent(new Event("change"));
after.alt = document.getElementById(select.dataset.place).getAttribute("aria-label");
const caption = document.getElementById(select.dataset.place).closest("figure").firstChild;
after.caption = caption.textContent;
document.getElementById("count").textContent = JSON.stringify(after);
}"""


def test_filter_order_and_choice_follow_the_reader(browser, tmp_path, monkeypatch):
    from perfgate.report import page as module

    original = module.file_text
    monkeypatch.setattr(
        module, "file_text", lambda name: original(name) + (ACTIONS if name == "page.js" else "")
    )
    loaded = load(browser, tmp_path, page(judged_document(), histories()))
    assert loaded.errors == []
    after = json.loads(loaded.texts["count"])
    assert after["one"] == ["improved"]
    assert after["hash"] == "#status=improved"
    assert after["two"] == ["regressed", "improved"]
    assert after["none"] == len(BY_STATUS)
    assert after["found"] == ["regressed"]
    assert after["up"][-4:] == ["-50.0%", "+0.0%", "+100%", "+100%"]
    assert after["down"][:4] == ["+100%", "+100%", "+0.0%", "-50.0%"]
    assert after["sort"] == "ascending"
    assert after["caption"] == "reference[mlp-forward] (unchanged)"
    assert after["alt"].startswith("History of reference[mlp-forward] (unchanged): time over")


def test_a_fault_of_the_page_would_be_seen(browser, tmp_path):
    """A script that fails, a request, and a name that is markup: each is noticed, or blocked."""
    planted = '<img src="https://example.com/x.png"><script>throw new Error("planted")</script>'
    text = page(judged_document())
    open_page = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("<main>", f"<main>{planted}")
    loaded = load(browser, tmp_path, open_page)
    assert any("planted" in error for error in loaded.errors)
    assert loaded.requested == ["https://example.com/x.png"]

    (tmp_path / "blocked").mkdir()
    loaded = load(browser, tmp_path / "blocked", text.replace("<main>", f"<main>{planted}"))
    assert loaded.requested == []
    assert sum("Content Security Policy" in error for error in loaded.errors) == 2
    assert policy("a") != policy("b")


# `make axe` fetches it.
AXE = Path(__file__).resolve().parents[2] / "build" / "axe" / "package" / "axe.min.js"

# Runs axe-core once the plots are drawn, and writes down what it finds.
RUN_AXE = """
addEventListener("load", async () => {
  const { violations, passes } = await axe.run(document);
  const said = document.body.appendChild(document.createElement("pre"));
  said.id = "axe";
  said.textContent = JSON.stringify({
    passed: passes.map((rule) => rule.id),
    width: innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    wrong: violations.map((rule) => [rule.impact, rule.id, rule.nodes.map((node) => node.html)]),
  });
});
"""

LOOKS = {
    "desktop": ["--window-size=1400,1000"],
    "phone": ["--window-size=390,844"],
    "dark": ["--window-size=1400,1000", "--blink-settings=preferredColorScheme=0"],
}


@pytest.fixture(scope="module")
def axe():
    file = Path(os.environ.get("AXE_CORE", AXE))
    if not file.is_file():
        pytest.skip(f"axe-core is not at {file}: run make axe, which needs npm")
    return file.read_text(encoding="utf-8")


def look_at(browser, axe, tmp_path, text, look):
    """What axe-core says of a page; the policy that forbids other scripts is taken off."""
    scripts = f"<script>{axe}</script><script>{RUN_AXE}</script></body>"
    text = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", scripts)
    return json.loads(load(browser, tmp_path, text, flags=LOOKS[look]).texts["axe"])


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious(browser, axe, tmp_path, look):
    said = look_at(browser, axe, tmp_path, whole_page(), look)
    assert said["dark"] == (look == "dark")
    assert (said["width"] <= 640) == (look == "phone")  # where the page's narrow form begins
    assert {"color-contrast", "button-name", "label", "landmark-one-main"} <= {*said["passed"]}
    assert [found for found in said["wrong"] if found[0] in ("serious", "critical")] == []


def test_axe_would_see_a_fault(browser, axe, tmp_path):
    planted = '<p style="color: #bbb; background: #ccc">faint</p><button></button>'
    text = page(judged_document()).replace("<main>", f"<main>{planted}")
    said = look_at(browser, axe, tmp_path, text, "desktop")
    assert {"color-contrast", "button-name"} <= {rule for _, rule, _ in said["wrong"]}
