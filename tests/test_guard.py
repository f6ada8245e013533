"""The guard before real servers: Voila's tornado, and uvicorn."""

import asyncio
import http.client
import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from urllib.parse import urlencode

import pytest
from conftest import Pod, ended_in, processes_in, wait_for
from workbench import Bench

from lightning_pod.core.guard import GuardedASGI, line, make_guard, send_answer
from lightning_pod.core.job import jobs

TOKEN = "correct-horse-battery"
CHANNELS = "api/kernels/00000000-0000-0000-0000-000000000000/channels"


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """A workbench of this machine, and one for others behind a prefix, which are only asked and never opened."""
    made = {}
    with ExitStack() as whatever_comes:
        for name, args in {
            "home": (),
            "away": ("--host", "0.0.0.0", "--token", TOKEN, "--allow-host", "pod.example.org", "--base-url", "pod"),
        }.items():
            pod = Pod(tmp_path_factory.mktemp(name))
            whatever_comes.enter_context(ended_in(pod.workspace))
            made[name] = Bench(pod, *args)
            made[name].pod, made[name].workspace = pod, pod.workspace
        yield made
        for bench in made.values():
            bench.end()


def asked(port: int, path: str, headers: list[tuple[str, str]], method: str = "GET", body: bytes | None = None):
    """The status, the headers and the text of what a server answers."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        c.putheader(name, value)
    if body is not None:
        c.putheader("Content-Type", "application/x-www-form-urlencoded")
        c.putheader("Content-Length", str(len(body)))
    c.endheaders(body)
    r = c.getresponse()
    found = r.status, dict(r.getheaders()), r.read().decode()
    c.close()
    return found


def websocket_status(url: str, headers: dict) -> int:
    """What a handshake is answered with: 101 where it is accepted."""
    import websocket

    try:
        host, sent = headers.get("Host"), [f"{k}: {v}" for k, v in headers.items() if k != "Host"]
        websocket.create_connection(url, header=sent, host=host, suppress_origin=True).close()
    except websocket.WebSocketBadStatusException as e:
        return e.status_code
    return 101


PASSED = 302  # another address than the page is sent to a file: asked for beyond the guard, and none of its answers


def test_requests_pass_or_are_refused_by_host_origin_token_and_site(benches):
    home, away = benches["home"], benches["away"]
    lan, cookie = f"10.0.0.7:{away.port}", ("Cookie", f"pod-{away.port}={make_guard(token=TOKEN).cookie}")
    own, name = f"127.0.0.1:{home.port}", "pod.example.org"
    mozilla, next_port = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"), f"http://10.0.0.7:{away.port + 1}/"
    shown = ("Accept", "text/html,*/*;q=0.8")
    table = [
        (home, [("Host", own)], PASSED),
        (home, [("Host", f"localhost:{home.port}"), ("Sec-Fetch-Site", "none")], PASSED),
        (home, [("Host", f"[::1]:{home.port}")], PASSED),
        (home, [("Host", own), ("Origin", f"http://{own}")], PASSED),
        (home, [], 400),
        (home, [("Host", own), ("Origin", "http://evil.com")], 403),
        (home, [("Host", own), ("Origin", "null")], 403),
        (home, [("Host", own), ("Origin", f"http://127.0.0.1:{home.port + 1}")], 403),
        (home, [("Host", own), ("Sec-Fetch-Site", "cross-site")], 403),
        (home, [("Host", own), ("Sec-Fetch-Site", "same-site")], 403),
        (home, [("Host", own), ("X-Forwarded-For", "1.2.3.4")], 403),
        (home, [("Host", f"evil.com:{home.port}")], 403),
        (home, [("Host", f"evil.com:{home.port}"), ("Origin", f"http://evil.com:{home.port}")], 403),
        (home, [("Host", f"10.0.0.7:{home.port}")], 403),
        (away, [("Host", lan)], 401),
        (away, [("Host", f"localhost:{away.port}")], 401),
        (away, [("Host", lan), cookie], PASSED),
        (away, [("Host", lan), ("Authorization", f"Bearer {TOKEN}")], PASSED),
        (away, [("Host", lan), ("Authorization", f"token {TOKEN}x")], 403),
        (away, [("Host", lan), cookie, ("Origin", "http://evil.com")], 403),
        (away, [("Host", f"evil.com:{away.port}"), cookie], 403),
        (away, [("Host", name), cookie, ("Origin", f"https://{name}"), ("X-Real-IP", "1.2.3.4")], PASSED),
        (away, [("Host", f"127.0.0.1:{away.port}"), cookie, ("Origin", f"https://{name}:8443")], PASSED),
        # browsers on plain http, and old ones, don't send Sec-Fetch-Site
        (away, [("Host", lan), cookie, mozilla, ("Referer", next_port)], 403),
        (away, [("Host", lan), cookie, mozilla], 403),
        (away, [("Host", lan), cookie, mozilla, ("Referer", f"http://{lan}/pod/?a=http://b/")], PASSED),
        (away, [("Host", lan), cookie, mozilla, ("Origin", next_port[:-1]), ("Referer", f"http://{lan}/")], 403),
        (away, [("Host", lan), cookie, mozilla, shown], PASSED),
        (away, [("Host", lan), cookie, mozilla, shown, ("Referer", next_port)], 403),
        (home, [("Host", own), mozilla, ("Referer", "http://evil.com/")], 403),
        (home, [("Host", own), mozilla], 403),
        (home, [("Host", own), mozilla, ("Referer", f"http://{own}/")], PASSED),
    ]
    found = [asked(b.port, f"{b.base}nothing", headers)[0] for b, headers, _ in table]
    assert [(h, f) for (_, h, s), f in zip(table, found, strict=True) if f != s] == []
    # the page itself, the API, other methods
    foreign = [("Host", own), ("Origin", "http://evil.com")]
    kernel = "/api/kernels/x"
    calls = [("GET", "/"), ("HEAD", "/"), ("POST", "/voila/api/shutdown/x"), ("OPTIONS", kernel), ("DELETE", kernel)]
    for method, path in calls:
        assert asked(home.port, path, foreign, method)[0] == 403, (method, path)
        assert asked(away.port, f"/pod{path}", [("Host", lan)], method)[0] == 401, (method, path)
    assert not home.kernels() and not away.kernels(), "a request that was refused started a kernel"


def test_websockets_of_other_pages_are_refused(benches):
    home, away = benches["home"], benches["away"]
    own, lan = f"127.0.0.1:{home.port}", f"127.0.0.1:{away.port}"
    cookie = f"pod-{away.port}={make_guard(token=TOKEN).cookie}"
    passed = {websocket_status(f"ws://{own}/{CHANNELS}", {}), websocket_status(f"ws://{own}/{CHANNELS}", {"Origin": f"http://{own}"})}
    assert passed == {404}, "there is no such kernel, and that is all that is wrong"
    assert websocket_status(f"ws://{own}/{CHANNELS}", {"Origin": "http://evil.com"}) == 403
    assert websocket_status(f"ws://{own}/{CHANNELS}", {"Host": "evil.com", "Origin": "http://evil.com"}) == 403
    for headers, status in (
        ({}, 401),
        ({"Cookie": cookie}, 404),
        ({"Cookie": cookie, "Origin": "http://evil.com"}, 403),
        ({"Cookie": cookie, "Origin": "https://pod.example.org"}, 404),
    ):
        assert websocket_status(f"ws://{lan}/pod/{CHANNELS}", headers) == status, headers


def test_the_token_signs_in_once_and_is_kept_nowhere(benches):
    away = benches["away"]
    at, reads = ("Host", f"10.0.0.7:{away.port}"), ("Accept", "text/html")
    status, headers, text = asked(away.port, f"/pod/?token={TOKEN}&tab=2", [at, reads])
    assert status == 200 and "url=/pod/?tab=2" in text and TOKEN not in text
    cookie = rf"pod-{away.port}=[0-9a-f]{{64}}; Path=/pod/; HttpOnly; SameSite=Strict"
    assert re.fullmatch(cookie, headers["Set-Cookie"])
    status, headers, text = asked(away.port, "/pod/?token=some-other-token", [at, reads])
    assert status == 403 and "Set-Cookie" not in headers and "That is not this server" in text
    assert asked(away.port, "/pod/", [at, ("Cookie", f"pod-{away.port}={TOKEN}")])[0] == 401
    kept = {f: f.read_text(errors="replace") for f in files_in(away.workspace)}
    assert [f for f, text in kept.items() if TOKEN in text or "some-other-token" in text] == []
    assert any("403 GET /pod/" in text for text in kept.values()), "what was refused isn't in the log"


def form(**fields) -> bytes:
    return urlencode(fields).encode()


def test_what_is_entered_on_the_sign_in_page_is_posted(benches):
    away, sign_in = benches["away"], "/pod/pod-sign-in"
    lan = f"10.0.0.7:{away.port}"
    own = [("Host", lan), ("Origin", f"http://{lan}"), ("Accept", "text/html"), ("User-Agent", "Mozilla/5.0")]
    status, _, text = asked(away.port, "/pod/?tab=2", own[:1] + own[2:])
    assert status == 401 and f'<form method="post" action="{sign_in}">' in text and 'value="/pod/?tab=2"' in text
    status, headers, text = asked(away.port, sign_in, own, "POST", form(token=TOKEN, to="/pod/?tab=2"))
    assert (status, headers["Location"], text) == (303, "/pod/?tab=2", "")
    assert headers["Set-Cookie"].startswith(f"pod-{away.port}={make_guard(token=TOKEN).cookie}; Path=/pod/;")
    table = [
        (own, form(token="some-other-token", to="/pod/"), 403), (own, form(to="/pod/"), 403), (own, b"", 403),
        ([("Host", lan), ("Origin", "http://evil.com")], form(token=TOKEN), 403),
        ([("Host", "evil.com"), ("Origin", "http://evil.com")], form(token=TOKEN), 403),
        (own, form(token="x" * 20_000), 413), (own, bytes(3 << 20), 413), (own[:1], form(token=TOKEN), 303),
    ]
    for headers, body, right in table:
        status, said, _ = asked(away.port, sign_in, headers, "POST", body)
        assert (status, "Set-Cookie" in said) == (right, right == 303), (headers, body[:50])
    # its address is no page, and the server that asks for no token has no such form
    cookie = ("Cookie", f"pod-{away.port}={make_guard(token=TOKEN).cookie}")
    status, _, text = asked(away.port, sign_in, own[:1] + own[2:])
    assert status == 401 and 'value="/pod/"' in text
    status, headers, _ = asked(away.port, sign_in, [*own[:1], *own[2:], cookie])
    assert (status, headers["Location"]) == (303, "/pod/")
    home = benches["home"]
    assert asked(home.port, "/pod-sign-in", [("Host", f"127.0.0.1:{home.port}")], "POST", form(token=TOKEN))[0] == 405


def test_no_more_kernels_than_may_be_and_a_page_that_says_so(pod):
    bench = Bench(pod, "--kernels", "2", "--host", "0.0.0.0")
    assert len(bench.token) == 32, "none was given, so one is made"
    own = [("Host", f"127.0.0.1:{bench.port}"), ("Accept", "text/html"), ("Authorization", f"Bearer {bench.token}")]
    found = []
    many = [threading.Thread(target=lambda: found.append(asked(bench.port, "/", own))) for _ in range(6)]
    for t in many:
        t.start()
    for t in many:
        t.join()
    assert sorted(status for status, *_ in found) == [200, 200, 503, 503, 503, 503]
    said = next((headers, text) for status, headers, text in found if status == 503)
    assert "Retry-After" in said[0] and "--kernels" in said[1]
    assert len(bench.kernels()) == 2
    bench.end()


def test_a_workbench_that_is_up_already_is_told_with_its_own_address(benches):
    home, away = benches["home"], benches["away"]
    outside = f"http://{socket.gethostname().lower()}:{away.port}/pod/"
    for bench, args, url in ((home, ("--base-url", "elsewhere"), home.url), (away, (), outside)):
        said = bench.pod("up", "--no-browser", "--port", bench.port, *args, code=2).stderr
        assert f"is up already, at {url}: open that" in said


def test_a_workbench_that_goes_on_asks_for_a_token_that_somebody_knows(pod):
    bench = Bench(pod, "--host", "0.0.0.0")
    bench.end()
    (job,) = jobs()
    said = pod("resume", job.id, code=1, timeout=60).stderr
    assert f"POD_TOKEN=… pod resume {job.id}" in said and job.status == "failed"
    pod.changes["POD_TOKEN"] = "another-one-for-this-time"
    p = pod.start("resume", job.id)
    wait_for(lambda: answers(bench.port), 60, "the workbench")
    at, known = ("Host", f"127.0.0.1:{bench.port}"), ("Authorization", "Bearer another-one-for-this-time")
    assert [asked(bench.port, "/nothing", headers)[0] for headers in ([at], [at, known])] == [401, PASSED]
    assert job.stop() == "stopped"
    assert "The workbench is at http://" in p.communicate(timeout=60)[1]
    kept = {f: f.read_text(errors="replace") for f in files_in(pod.workspace)}
    assert [f for f, text in kept.items() if bench.token in text or "another-one" in text] == []


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_a_workbench_that_goes_on_says_that_its_port_is_taken(pod):
    bench = Bench(pod)
    bench.end()
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", bench.port))
        s.listen()
        p = pod("resume", jobs()[0].id, code=1, timeout=60)
    assert f"port {bench.port} of 127.0.0.1 is taken by another program" in p.stderr and "SystemExit" not in p.stderr


BROWSER = """#!{python}
import json, os, pathlib, sys
from urllib.request import url2pathname
from urllib.parse import urlparse
told = {{"argv": sys.argv[1:]}}
if sys.argv[1].startswith("file:"):
    file = url2pathname(urlparse(sys.argv[1]).path)
    told |= {{"file": file, "mode": oct(os.stat(file).st_mode & 0o777), "text": open(file).read()}}
new = pathlib.Path(__file__).with_name("new.json")
new.write_text(json.dumps(told))
new.rename(new.with_name("told.json"))
"""


def test_a_browser_is_started_without_the_token(pod, tmp_path):
    browser, told = tmp_path / "browser.py", tmp_path / "told.json"
    browser.write_text(BROWSER.format(python=sys.executable))
    browser.chmod(0o755)
    pod.changes.update(DISPLAY=":0", BROWSER=f"{browser} %s")
    for args in (("--host", "0.0.0.0", "--base-url", "pod"), ()):
        bench = Bench(pod, *args, browser=True)
        wait_for(told.exists, 60, "the browser")
        found = json.loads(told.read_text())
        told.unlink()
        if args:
            assert found["mode"] == "0o600" and bench.token not in found["argv"][0]
            assert re.search(r'url=(\S+)"', found["text"])[1].endswith(f":{bench.port}/pod/?token={bench.token}")
        else:
            assert found == {"argv": [bench.url]}, "there is no secret in it"
        bench.end()
        assert not any(bench.token and bench.token in f.read_text(errors="replace") for f in files_in(pod.workspace))


def files_in(folder):
    return [f for f in folder.rglob("*") if f.is_file()]


def test_a_workbench_leaves_no_process_whether_it_is_killed_or_never_began(pod):
    bench = Bench(pod)
    assert asked(bench.port, "/", [("Host", f"127.0.0.1:{bench.port}"), ("Accept", "text/html")])[0] == 200
    kernels = bench.kernels()
    assert len(kernels) == 1 and set(processes_in(pod.workspace)) >= {bench.process.pid, kernels[0].pid}
    bench.process.kill()  # the server alone
    bench.process.communicate()
    wait_for(lambda: not processes_in(pod.workspace), 60, "the kernels to miss their server")
    with pytest.raises(AssertionError, match="expected 1 or more"):
        Bench(pod, "--kernels", "0")
    bench = Bench(pod)
    asked(bench.port, "/", [("Host", f"127.0.0.1:{bench.port}"), ("Accept", "text/html")])
    with pytest.raises(subprocess.TimeoutExpired):
        bench.end(signal.SIGCONT, timeout=0.1)  # it doesn't end of this, and so is killed
    wait_for(lambda: not processes_in(pod.workspace), 60, "what was killed")


async def _program(scope, receive, send):
    """Says hello, to a websocket too."""
    if scope["type"] == "http":
        return await send_answer(line("hello", 200), send)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return await send({"type": "websocket.close"})


@pytest.mark.may_skip
def test_the_guard_before_uvicorn():
    for name in ("uvicorn", "websockets"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; the notebook speaks the protocol itself")
    import uvicorn

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    guard = make_guard("0.0.0.0", port, token=TOKEN)
    program = GuardedASGI(guard, _program)
    server = uvicorn.Server(uvicorn.Config(program, "127.0.0.1", port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_for(lambda: server.started, 60, "uvicorn")
    at, cookie = ("Host", f"10.0.0.7:{port}"), ("Cookie", f"{guard.cookie_name}={guard.cookie}")
    page = ("Accept", "text/html")
    table = [
        ([at], 401), ([at, cookie], 200), ([at, cookie, ("Origin", "http://evil.com")], 403),
        ([("Host", "evil.com"), cookie], 403), ([at, ("Authorization", f"Bearer {TOKEN}")], 200),
    ]
    assert [asked(port, "/", headers)[0] for headers, _ in table] == [status for _, status in table]
    status, headers, text = asked(port, f"/a%20b?token={TOKEN}", [at, page])
    assert status == 200 and headers["set-cookie"].startswith(f"pod-{port}=") and 'url=/a%20b"' in text
    status, headers, _ = asked(port, guard.form, [at, page], "POST", form(token=TOKEN, to="/a?tab=2"))
    assert (status, headers["location"]) == (303, "/a?tab=2") and headers["set-cookie"].startswith(f"pod-{port}=")
    assert [asked(port, guard.form, [at], "POST", b)[0] for b in (form(token="guess"), bytes(3 << 20))] == [403, 413]
    url, cookie = f"ws://127.0.0.1:{port}/", {"Cookie": "=".join([guard.cookie_name, guard.cookie])}
    assert websocket_status(url, cookie) == 101
    assert websocket_status(url, {}) == websocket_status(url, {**cookie, "Origin": "http://evil.com"}) == 403
    server.should_exit = True
    thread.join(30)
