"""The workbench as a person uses it: a real server, a real browser, a kernel that is killed."""

import math
import shutil
import signal
import socket
import threading

import numpy as np
import pytest
from conftest import wait_for
from PIL import Image
from workbench import Bench

from lightning_pod.core.image import formats_in_words
from lightning_pod.train.fit import fit
from lightning_pod.train.runs import list_runs

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP pod.test 127.0.0.1"]  # a name that isn't loopback: plain http is not trusted there
SLOW_MS = 180_000  # a kernel on a machine that others use too


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield b
        b.close()


@pytest.fixture
def bench(pod):
    b = Bench(pod)
    yield b
    if b.process.poll() is None:
        b.end()


@pytest.fixture
def page(browser, bench):
    """The workbench's page. Asking any other address than its own is an error, and so is an error in the console."""
    context = browser.new_context(viewport={"width": 1240, "height": 860})
    p, wrong = context.new_page(), []
    p.set_default_timeout(SLOW_MS)
    own = (bench.url, "data:", "blob:", f"ws://127.0.0.1:{bench.port}/")
    p.on("request", lambda r: r.url.startswith(own) or wrong.append(r.url))
    p.on("console", lambda m: m.type == "error" and not bench.ended and wrong.append(m.text))
    p.on("pageerror", lambda e: wrong.append(str(e)))
    opened(p, bench)
    yield p
    context.close()
    assert not wrong, wrong


def opened(page, bench):
    page.goto(bench.url)
    page.wait_for_selector(".pod-start")
    page.wait_for_selector(".pod-chart")


def state(page, *names):
    page.wait_for_selector(", ".join(f".pod-badge.{n}" for n in names))


def points(page) -> int:
    return int(page.locator(".pod-charts").first.get_attribute("data-points"))


def set_epochs(page, n: int):
    readout = page.locator(".widget-slider", has_text="Epochs").first.locator(".widget-readout")
    readout.click()
    page.keyboard.press("Control+A")
    page.keyboard.type(str(n))
    page.keyboard.press("Enter")


def draw_zero(page):
    pad = page.locator(".pod-pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x + 40, y)
    page.mouse.down()
    for i in range(66):
        page.mouse.move(x + 40 * math.cos(i / 10), y + 75 * math.sin(i / 10))
    page.mouse.up()


def upload(page, file):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose an image").click()
    chooser.value.set_files(file)


def best_class(page) -> str:
    page.wait_for_selector(".pod-probs")
    return page.locator(".pod-probs td.c").first.inner_text()


def test_train_stop_resume_reload_and_draw(page, bench, tmp_path):
    # trains, and the curve moves
    set_epochs(page, 60)
    page.click(".pod-start")
    state(page, "running")
    page.wait_for_function("Number(document.querySelector('.pod-charts').dataset.points) > 3")
    seen = points(page)
    page.wait_for_function(f"Number(document.querySelector('.pod-charts').dataset.points) > {seen + 5}")
    assert "left" in page.locator(".pod-line").nth(1).inner_text()
    # stops, with a checkpoint, and goes on
    page.click(".pod-stop")
    state(page, "stopped")
    first = list_runs()[0]
    assert first.status == "stopped" and (first.checkpoints / "last.ckpt").exists()
    page.click(".pod-resume")
    state(page, "running")
    page.click(".pod-stop")
    state(page, "stopped")
    # trains again, to the end
    set_epochs(page, 8)
    page.click(".pod-start")
    state(page, "done")
    assert "test accuracy" in page.locator(".pod-line").nth(1).inner_text()
    run = list_runs()[0]
    assert run.id != first.id and run.status == "done" and run.config["epochs"] == 8
    page.wait_for_function("Number(document.querySelector('.pod-charts').dataset.points) >= 24")
    # a reload finds it, with its whole curve and its log
    seen = points(page)
    page.reload()
    state(page, "done")
    page.wait_for_function(f"Number(document.querySelector('.pod-charts').dataset.points) == {seen}")
    page.get_by_text("Log", exact=True).click()
    assert "done: " in page.locator(".pod-log").inner_text()
    assert len(bench.kernels()) == 1, "the reloaded page's old kernel was not ended"
    # draws a digit, and gets a table of probabilities
    page.get_by_role("tab", name="Infer").click()
    draw_zero(page)
    assert best_class(page) == "0"
    assert page.locator(".pod-probs tr").count() == 10
    assert page.locator(".pod-seen img").get_attribute("alt") == "8 by 8 pixels"
    # an image of the validation set, with its true class
    page.get_by_role("tab", name="Validation set").click()
    page.wait_for_function("document.body.innerText.includes('validation image 0 is a')")
    # an upload that is no image, then one that is
    page.get_by_role("tab", name="Upload").click()
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    upload(page, text)
    page.wait_for_selector(".pod-error:has-text('notes.txt'):has-text('is not an image')")
    from PIL import Image

    from lightning_pod.core.sources import digits

    d = digits()
    Image.fromarray(d.pixels[0, ..., 0]).resize((80, 80), 0).save(tmp_path / "zero.png")
    upload(page, tmp_path / "zero.png")
    page.wait_for_function("document.body.innerText.includes('zero.png')")
    page.wait_for_function("!document.querySelector('.pod-error')")
    assert best_class(page) == str(d.labels[0])


def test_a_study_is_started_watched_and_steered_on_the_page(page, bench):
    page.get_by_role("tab", name="Tune").click()
    panel = page.locator(".pod", has=page.locator(".pod-tune-start")).last
    panel.get_by_label("Model").fill("podnet_n")
    panel.get_by_label("Trials").fill("2")
    for space, words in (("", "the space is empty"), ("lr: {low: 0.005", "no YAML")):
        panel.locator(".pod-space textarea").fill(space)
        page.click(".pod-tune-start")
        panel.locator(f".pod-error:has-text('{words}')").wait_for()
    panel.locator(".pod-space textarea").fill("lr: {low: 0.005, high: 0.05, log: true}")
    page.click(".pod-tune-start")
    panel.locator(".pod-badge.done").wait_for()
    assert panel.locator(".pod-table tr").count() == 3 and panel.locator("img.pod-figure").count() == 1
    # a trial by hand: the study is asked to go on, and then has three
    panel.get_by_text("Steer it").click()
    panel.get_by_label("Settings").fill("lr=0.02")
    page.click(".pod-add")
    page.wait_for_function("document.querySelector('.pod-table').innerText.includes('waiting')")
    page.click(".pod-tune-resume")
    page.wait_for_function("(document.querySelector('.pod-table').innerText.match(/done|pruned/g) || []).length == 3")
    # what is wrong is said
    panel.get_by_label("Settings").fill("lr=7")
    page.click(".pod-add")
    panel.locator(".pod-error:has-text('lr=7')").wait_for()
    from lightning_pod.train.tune import load_study

    assert sum(load_study().counts().values()) == 3 and load_study().best_run.status == "done"


FOREIGN = """<!doctype html><title>elsewhere</title>
<img src="{url}"><img src="{url}" referrerpolicy="no-referrer">
<iframe src="{url}"></iframe><script src="{url}"></script><a href="{url}">link</a>
<form method="post" action="{url}" target="other"></form><iframe name="other"></iframe>
<script>
  document.forms[0].submit();
  const s = new WebSocket("{url}x".replace("http", "ws"));
  const tries = [
    fetch("{url}").then(() => "read", () => "error"),
    fetch("{url}", {{mode: "no-cors", referrerPolicy: "no-referrer"}}).then(() => "sent"),
    new Promise(found => s.onerror = s.onopen = e => found(e.type)),
  ];
  onload = () => Promise.all(tries).then(found => document.title = found.join(" "));
</script>"""


@pytest.fixture
def elsewhere():
    """A function: the address of a page of another site, which asks for `url` in every way that a page has."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Page(BaseHTTPRequestHandler):
        text = ""

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(self.text.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def at(url: str) -> str:
        Page.text = FOREIGN.format(url=url)
        return f"http://localhost:{server.server_port}/"

    yield at
    server.shutdown()
    server.server_close()


def test_a_page_of_another_site_starts_nothing_here(browser, bench, elsewhere):
    context = browser.new_context()
    p = context.new_page()
    p.goto(elsewhere(bench.url))
    p.wait_for_function("document.title != 'elsewhere'", timeout=SLOW_MS)
    assert p.title() == "error sent error"
    assert not bench.kernels()
    # its link opens a window only after a click that is made here
    p.click("text=link")
    p.wait_for_selector("text=Another page has brought you here", timeout=SLOW_MS)
    assert not bench.kernels()
    p.click("text=Open it")
    p.wait_for_selector(".pod-start", timeout=SLOW_MS)
    assert len(bench.kernels()) == 1
    context.close()


def test_where_others_can_reach_it_a_workbench_asks_for_its_token(browser, pod, elsewhere):
    bench = Bench(pod, "--host", "0.0.0.0", "--base-url", "/pod/")
    context = browser.new_context()
    p = context.new_page()
    p.set_default_timeout(SLOW_MS)
    posted = []
    p.on("request", lambda r: posted.append(r.url) if r.method == "POST" else None)
    p.goto(f"{bench.url}?tab=2")
    for token, then in (("not-the-right-token", "text=That is not this server"), (bench.token, ".pod-chart")):
        p.get_by_label("Token").fill(token)
        p.get_by_role("button", name="Sign in").click()
        p.wait_for_selector(then)
    assert p.url == f"{bench.url}?tab=2" and bench.token not in p.content()
    assert posted[:2] == [f"{bench.url}pod-sign-in"] * 2, "no address holds the token, so no history does"
    # a page of another site can't use the cookie, and a stranger has none
    p.goto(elsewhere(bench.url))
    p.wait_for_function("document.title != 'elsewhere'")
    p.click("text=link")
    p.wait_for_selector("text=Signed in already")
    p.click("text=Go on")
    p.wait_for_selector(".pod-chart")
    other = browser.new_context().new_page()
    other.goto(bench.url)
    assert other.get_by_label("Token").count() == 1 and other.locator(".pod").count() == 0
    # the address that was printed signs in at once, from anywhere
    other.goto(elsewhere(f"{bench.url}?token={bench.token}"))
    other.click("text=link")
    other.wait_for_selector(".pod-chart", timeout=SLOW_MS)
    assert other.url == bench.url
    other.context.close()
    context.close()
    bench.end()


def test_on_plain_http_only_the_workbenchs_own_pages_may_ask(browser, pod, elsewhere):
    bench = Bench(pod, "--allow-host", "pod.test")
    at = f"http://pod.test:{bench.port}/"
    context = browser.new_context()
    p, sent = context.new_page(), []
    p.set_default_timeout(SLOW_MS)
    p.on("request", lambda r: sent.append(r.all_headers()))
    p.goto(at)
    p.get_by_label("Token").fill(bench.token)
    p.get_by_role("button", name="Sign in").click()
    p.wait_for_selector(".pod-chart")
    assert p.url == at and len(bench.kernels()) == 1
    assert not any("sec-fetch-site" in headers for headers in sent), "this browser says it here too: nothing is tested"
    # the page of another port is of the same site: the browser gives it the cookie
    p.goto("about:blank")
    wait_for(lambda: not bench.kernels(), 60, "the kernel's end")
    other = context.new_page()
    other.goto(elsewhere(at).replace("localhost", "pod.test"))
    other.wait_for_function("document.title != 'elsewhere'", timeout=SLOW_MS)
    assert other.title() == "error sent error" and not bench.kernels()
    other.click("text=link")
    other.wait_for_selector("text=Another page has brought you here", timeout=SLOW_MS)
    assert not bench.kernels()
    other.click("text=Open it")
    other.wait_for_selector(".pod-chart", timeout=SLOW_MS)
    context.close()
    bench.end()


def test_a_killed_kernel_loses_nothing(page, bench):
    set_epochs(page, 60)
    page.click(".pod-start")
    page.wait_for_function("Number(document.querySelector('.pod-charts').dataset.points) > 3")
    (kernel,) = bench.kernels()
    kernel.kill()
    run = list_runs()[0]
    had = len(run.history.points)
    wait_for(lambda: len(run.history.points) > had, 60, "the training to go on without its page")
    page.reload()
    assert kernel.pid not in [k.pid for k in bench.kernels()]
    state(page, "running")
    page.wait_for_function(f"Number(document.querySelector('.pod-charts').dataset.points) > {had}")
    page.click(".pod-stop")
    state(page, "stopped")


def test_what_is_wrong_is_said_on_the_page(page, bench):
    field = page.locator("input[list]").first
    for value, words in (("digitz", "Did you mean 'digits'?"), ("no/such/folder", "no such folder")):
        field.fill(value)
        field.press("Tab")
        page.click(".pod-start")
        page.wait_for_selector(f".pod-error:has-text(\"{words}\")")
    field.fill("digits")
    model = page.locator("input[list]").nth(1)
    for value, words in (("podnet_x", "Did you mean 'podnet_"), ("podnet_s", None)):
        model.fill(value)
        model.press("Tab")
        if words:
            page.click(".pod-start")
            page.wait_for_selector(f".pod-error:has-text(\"{words}\")")
    assert not list_runs()
    # a run that fails says why, and the page is as alive as before
    field.fill(str(folder_with_a_damaged_image()))
    field.press("Tab")
    page.click(".pod-start")
    state(page, "failed")
    page.wait_for_selector(".pod-error:has-text('1 of 9 images')")
    field.fill("digits")
    field.press("Tab")
    set_epochs(page, 1)
    page.dblclick(".pod-start")  # which is one start
    state(page, "done")
    assert len(list_runs()) == 2


def folder_with_a_damaged_image():
    from PIL import Image

    from lightning_pod.core.config import workspace

    folder = workspace().path / "animals"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8), i).save(folder / name / f"{i}.png")
    (folder / "cat" / "torn.png").write_bytes(b"torn")
    return folder


def test_what_a_run_remarks_and_which_runs_are_damaged_is_said_where_it_is_asked(browser, pod, workspace):
    rng = np.random.default_rng(0)
    stripes = np.where((np.arange(8) % 4 < 2)[:, None, None], 200, 40) + rng.integers(0, 40, (40, 8, 8, 3))
    images = np.concatenate([stripes[:20], stripes[20:].transpose(0, 2, 1, 3)]).astype(np.uint8)
    labels = ["lying"] * 20 + ["standing"] * 20
    run = fit((images, labels), "podnet_n", epochs=1, loggers="none", progress=False)
    (workspace / "runs" / "<b>notes").mkdir()
    files = {"grey.png": images[0, ..., 0], "coloured.png": images[0]}
    for name, a in files.items():
        Image.fromarray(a).save(workspace / name)
    bench = Bench(pod)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(SLOW_MS)
    opened(page, bench)
    page.get_by_role("tab", name="Infer").click()
    page.wait_for_selector(".pod-damaged:has-text('A run is damaged and can\\'t be asked')")
    assert "<b>notes: it holds no status.json" in page.locator(".pod-damaged").inner_text()
    assert page.locator(".pod-damaged b").count() == 0
    choice = page.locator("select").filter(has=page.locator(f"option:has-text('{run.id}')")).last
    assert choice.locator("option").count() == 1  # what is damaged is no choice
    page.get_by_role("tab", name="Upload").click()
    page.wait_for_selector(f"text={formats_in_words('or')}")
    upload(page, workspace / "grey.png")
    page.wait_for_selector(".pod-warning:has-text('the image has no colour')")
    assert page.locator(".pod-probs tr").count() == 2
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 360")
    inputs, columns = (page.locator(f"{c}:visible").bounding_box() for c in (".pod-inputs", ".pod-cols"))
    assert inputs["x"] + inputs["width"] <= columns["x"] + columns["width"]  # nothing is cut off at the right
    upload(page, workspace / "coloured.png")
    page.wait_for_selector(".pod-line:has-text('coloured.png')")
    page.wait_for_function("!document.body.innerText.includes('the image has no colour')")
    context.close()
    bench.end()


def test_ctrl_c_ends_everything_it_started(page, bench, pod):
    set_epochs(page, 60)
    page.click(".pod-start")
    state(page, "running")
    page.click(".pod-stop")
    state(page, "stopped")
    long_ago = list_runs()[0]
    page.click(".pod-start")
    state(page, "running")
    page.wait_for_function("Number(document.querySelector('.pod-charts').dataset.points) > 3")
    run, kernels = list_runs()[0], bench.kernels()
    listed = {j["kind"]: j for j in pod.json("ps")}
    assert set(listed) == {"workbench", "fit"} and "%" in listed["fit"]["progress"]
    code, said = bench.end()
    assert code == 0 and "Traceback" not in said and f"pod resume {run.id}" in said
    assert long_ago.id not in said, "it was stopped before, and not by the end of the workbench"
    assert run.status == "stopped" and (run.checkpoints / "last.ckpt").exists()
    wait_for(lambda: not any(k.is_running() for k in kernels), 10, "the kernels to end")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", bench.port))
    assert pod.json("ps") == []


def test_detached_trainings_outlive_the_workbench(pod, monkeypatch):
    bench = Bench(pod, "--detach")
    from lightning_pod.core.job import jobs
    from lightning_pod.train.runs import Run
    from lightning_pod.train.settings import FitConfig

    parent = next(j for j in jobs() if j.info["kind"] == "workbench")
    run = Run.create(pod.workspace / "runs", "fit", "lightning_pod.train.fit:fit_body", FitConfig(epochs=40).to_dict())
    monkeypatch.setenv("POD_JOB", str(parent.path))  # as in the page's kernel
    run.start()
    wait_for(lambda: run.history.progress, 60, "progress")
    code, said = bench.end(signal.SIGTERM)
    assert code == 0 and run.status == "running" and "goes on" in said
    assert run.stop() == "stopped"


def test_a_port_that_is_taken(pod, bench):
    for args, words in ((["--port", bench.port], "is up already"), (["--port", "70000"], "port=70000")):
        p = pod("up", "--no-browser", *args, code=2)
        assert words in p.stderr and "Traceback" not in p.stderr
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        p = pod("up", "--no-browser", "--port", s.getsockname()[1], code=2)
        assert "is taken by another program" in p.stderr and "--port" in p.stderr


def test_pod_stop_ends_a_workbench(pod, bench):
    (job,) = pod.json("ps")
    assert pod.json("stop", job["id"])[0]["status"] == "stopped"
    assert bench.process.wait(60) == 0
