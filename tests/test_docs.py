"""The docs site and the README: built once, read as files, opened in a browser."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]


def script(name: str, *args, root: Path = ROOT) -> subprocess.CompletedProcess:
    """A script of the project, run from a folder that has nothing to do with it."""
    command = [sys.executable, root / "scripts" / name, *map(str, args)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "_docs"
    done = script("docs.py", "--out", out)
    assert done.returncode == 0, done.stderr
    assert str(out / "index.html") in done.stdout
    return out


class Page(HTMLParser):
    """A page's text, links, ids and the addresses that it loads."""

    def __init__(self, file: Path):
        super().__init__()
        self.links, self.loads, self.ids, self.sidebar, self.parts, self._skip = [], [], set(), [], [], 0
        self.feed(file.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", "".join(self.parts))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self._skip += tag in ("script", "style")
        if a.get("id"):
            self.ids.add(a["id"])
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
            if "sidebar-link" in (a.get("class") or ""):
                self.sidebar.append(a["href"])
        elif tag in ("link", "script", "img", "iframe"):
            self.loads += [a[k] for k in ("src", "href") if a.get(k)]

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._skip:
            self.parts.append(data)


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return {f.relative_to(site).as_posix(): Page(f) for f in site.rglob("*.html")}


def test_every_notebook_is_a_page_in_reading_order(pages):
    shown = [link for link in dict.fromkeys(pages["index.html"].sidebar) if not link.startswith("#")]
    found = [p.relative_to(ROOT / "nbs") for p in (ROOT / "nbs").rglob("*.ipynb")]
    found = [p for p in found if p.parts[0] != "dashboards" and not any(x.startswith((".", "_")) for x in p.parts)]
    assert {link.removeprefix("./") for link in shown} == {p.with_suffix(".html").as_posix() for p in found}
    assert shown[0].endswith("index.html")
    folders = {}
    for link in shown[1:]:
        folder, _, name = link.removeprefix("./").rpartition("/")
        folders.setdefault(folder, []).append(int(m[0]) if (m := re.match(r"\d+", name)) else 1000)
    firsts = [numbers[0] for numbers in folders.values()]
    assert all(numbers == sorted(numbers) for numbers in folders.values()) and firsts == sorted(firsts)
    assert shown[-1].startswith(("bench/", "./bench/"))


def test_signatures_and_tables_of_parameters(pages):
    fit = pages["train/21_fit.html"]
    assert "fit(data='digits', model='podnet_s', *, resume=None" in fit.text and "fit" in fit.ids
    assert "go on with this run; everything else is then taken from it" in fit.text
    assert "LightningDataModule" in fit.text and "pytorch_lightning.core" not in fit.text
    config = pages["train/18_settings.html"]
    assert "passes over the training images" in config.text and "trainer={}" in config.text
    job = pages["core/02_job.html"]
    assert "class Job(path: str | PathLike)" in job.text and ".resume(trust=False) Start a Job again" in job.text
    assert "A training, a server" in job.text  # the prose that stands in the title's cell
    assert "ImageData.show_batch(n=16" in pages["core/06_data.html"].text


def test_outputs_are_there_and_hidden_cells_are_not(site, pages):
    text = (site / "core" / "05_augment.html").read_text(encoding="utf-8")
    assert re.search(r'<img [^>]*src="(data:image/(png|jpeg)|[^"]*\.(png|jpe?g))', text)
    assert "Run(2" in pages["train/21_fit.html"].text  # what a cell printed
    assert not any("nbdev_export" in page.text for name, page in pages.items())
    assert not any("#| export" in page.text for page in pages.values())


def test_search_index(site):
    entries = json.loads((site / "search.json").read_text(encoding="utf-8"))
    assert {"train/21_fit.html#fit", "core/02_job.html#Job"} <= {e["href"] for e in entries}
    assert any("bit for bit" in e["text"] for e in entries)


def test_links_lead_somewhere(site, pages):
    lost = []
    for name, page in pages.items():
        for link in page.links + page.loads:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (site / name).parent / unquote(url.path) if url.path else site / name
            target = target / "index.html" if target.is_dir() else target
            other = pages.get(target.resolve().relative_to(site.resolve()).as_posix()) if target.exists() else None
            if not target.exists() or (url.fragment and other and unquote(url.fragment) not in other.ids):
                lost.append(f"{name}: {link}")
    assert not lost, lost
    links = {link for page in pages.values() for link in page.links}
    assert not {link for link in links if re.search(r"/(blob|edit|issues)/", link)}


def test_readme_is_the_index():
    done = script("readme.py", "--check")
    assert done.returncode == 0, done.stderr
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make app" in text and "make test" in text and "coming from" in text
    for path in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / path).exists(), path
    assert not re.search(r"#\| |/tmp/|/home/|/root/|Traceback", text)


def test_a_site_that_cannot_be_built_says_why_and_leaves_the_last_one(tmp_path):
    for name in ("settings.ini", "_quarto.yml", "scripts/docs.py", "scripts/readme.py", "nbs/styles.css", "nbs/images"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# One\n> page\n\n[gone](nowhere.ipynb)"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "nbs" / "index.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "_docs").mkdir()
    (tmp_path / "_docs" / "index.html").write_text("the last one")
    done = script("docs.py", root=tmp_path)
    assert done.returncode == 1 and "nowhere" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "_docs" / "index.html").read_text() == "the last one"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_pages_ask_nobody_and_the_search_finds(site, pages):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    asked, wrong = [], []
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        page = browser.new_page()
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or asked.append(r.url))
        page.on("pageerror", lambda e: wrong.append(str(e)))
        for name in pages:
            page.goto((site / name).as_uri())
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("JobStopped")
        page.get_by_role("link", name="JobStopped").or_(page.locator("a", has_text="JobStopped")).first.wait_for()
        browser.close()
    assert not asked and not wrong, (asked, wrong)
