"""What the tests share: a workspace of their own, the command `pod`, waiting for conditions, and cleaning up after."""

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from lightning_pod.core.config import share_cores

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"
sys.path.insert(0, str(ROOT / "scripts"))
POD = Path(sys.executable).with_name("pod")
TIMEOUT_S = 1200  # of one test: far above what any of them needs
SLOW_TIMEOUT_S = 4 * 3600  # of one marked slow

# not that of whoever runs the tests
if "POD_KEY_FILE" not in os.environ:  # a process of a test has that of the session, and leaves it there
    os.environ["POD_KEY_FILE"] = str(Path(tempfile.mkdtemp(prefix="pod-key-")) / "key")
    atexit.register(shutil.rmtree, Path(os.environ["POD_KEY_FILE"]).parent, ignore_errors=True)
share_cores()  # before a test imports torch: other processes of the test train too


# ---- what takes minutes is left out unless asked for; deselected, not skipped


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [i for i in items if i.get_closest_marker("slow")]
    items[:] = [i for i in items if i not in slow]
    config.hook.pytest_deselected(items=slow)


# ---- in CI a skipped test is a failed one


def pytest_configure(config):
    config.addinivalue_line("markers", "may_skip: may be skipped even where CI is set")
    config.addinivalue_line("markers", "slow: takes minutes; runs only with --slow")


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _forbid_skip(report):
    if report.skipped and _in_ci() and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CI is set, so nothing may be skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if item.get_closest_marker("may_skip") is None:
        _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that hangs fails after `TIMEOUT_S`, one marked slow after `SLOW_TIMEOUT_S`."""
    seconds = SLOW_TIMEOUT_S if item.get_closest_marker("slow") else TIMEOUT_S

    def over(number, frame):
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- helpers


def wait_for(condition, timeout: float = 30, what: str = ""):
    """The first true value of `condition()`."""
    until = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < until, f"waited {timeout:g} s in vain for {what or condition}"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def processes_in(folder: Path) -> list[int]:
    """The processes, but for this one, that work in a workspace."""
    found = []
    for p in psutil.process_iter():
        try:
            if p.pid != os.getpid() and p.environ().get("POD_WORKSPACE") == str(folder) and alive(p.pid):
                found.append(p.pid)
        except psutil.Error:
            pass
    return found


@contextlib.contextmanager
def ended_in(folder: Path):
    """Whatever comes, no process that works in a workspace below `folder` outlives the block."""
    try:
        yield
    finally:
        for p in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if p.pid != os.getpid() and p.environ().get("POD_WORKSPACE", "").startswith(str(folder)):
                    p.kill()


def last_json(text: str):
    """The JSON document in the last line of what a command printed."""
    return json.loads(text.strip().splitlines()[-1])


def event(job, kind: str, **fields) -> dict:
    """The newest event of a kind, {} where there is none yet."""
    found = (e for e in reversed(job.events()) if e["kind"] == kind)
    return next((e for e in found if all(e.get(k) == v for k, v in fields.items())), {})


def litter(folder: Path) -> list[str]:
    """Files that were being written, and drafts of folders."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if re.search(r"\.(tmp|draft)$", p.name))


class Pod:
    """Runs the command `pod` in a workspace."""

    def __init__(self, workspace: Path):
        self.command, self.workspace, self.changes = POD, workspace, {}

    @property
    def env(self) -> dict:
        """This process's environment as it is now, with the workspace and `changes`; None: not set."""
        env = {**os.environ, "POD_WORKSPACE": str(self.workspace), **self.changes}
        return {k: v for k, v in env.items() if v is not None}

    def __call__(self, *args, code: int | None = 0, timeout: float = 240, **kwargs) -> subprocess.CompletedProcess:
        p = subprocess.run([self.command, *map(str, args)], cwd=self.workspace, env=self.env, stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=timeout, **kwargs)
        assert code is None or p.returncode == code, f"exit code {p.returncode}\n{p.stdout}\n{p.stderr}"
        return p

    def json(self, *args, **kwargs):
        return last_json(self(*args, "--json", **kwargs).stdout)

    def start(self, *args, **kwargs) -> subprocess.Popen:
        pipe = subprocess.PIPE
        return subprocess.Popen([self.command, *map(str, args)], cwd=self.workspace, env=self.env,
                                stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, **kwargs)

    def training(self, *args, at_step: int = 1):
        """`pod fit …` in a process of its own, as soon as it is at a step, and its run."""
        from lightning_pod.train.runs import list_runs

        known = list_runs()
        p = self.start("fit", *args)
        run = wait_for(lambda: [r for r in list_runs() if r.id not in {k.id for k in known}], 60, "a run")[0]
        wait_for(lambda: p.poll() is not None or event(run, "progress").get("done", 0) >= at_step, 120, "progress")
        assert p.poll() is None, f"ended too early: {p.communicate()}"
        return p, run


# ---- fixtures


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace that this test alone has; what still runs in it afterwards is killed."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.setenv("POD_WORKSPACE", str(folder))
    # bodies.py, for Jobs in processes of their own
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))
    monkeypatch.delenv("POD_JOB", raising=False)
    monkeypatch.chdir(folder)
    with ended_in(tmp_path):
        yield folder


@pytest.fixture
def pod(workspace):
    return Pod(workspace)


@pytest.fixture(scope="session")
def postgres_url():
    """A real PostgreSQL of this session: its URL, without a database."""
    from postgres import binaries, postgres_server

    if binaries() is None:
        pytest.skip("postgresql is not installed")
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def mysql_url():
    """A real MariaDB of this session: its URL, without a database."""
    from mysql import binary, mysql_server

    if binary() is None:
        pytest.skip("mariadb-server is not installed")
    with mysql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, workspace, monkeypatch):
    """The URL of an empty database, in turn of both kinds; `Store()` and the command `pod` use it."""
    if request.param == "sqlite":
        url = f"sqlite:///{workspace / 'data.db'}"
    else:
        import psycopg

        server, name = request.getfixturevalue("postgres_url"), f"t{time.monotonic_ns()}"
        with psycopg.connect(server + "postgres", autocommit=True) as c:
            c.execute(f"CREATE DATABASE {name}")
        url = server + name
    monkeypatch.setenv("POD_DATABASE_URL", url)
    return url


def _mounted(folder: Path, *options: str) -> bool:
    mount = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A function: a folder on a disk of so many kB, its own file system."""
    made = []

    def make(kilobytes: int, *more: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        if not _mounted(folder, "-o", ",".join([f"size={kilobytes}k", *more])):
            pytest.skip("a small disk can only be mounted as root")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int = 0):
    """Use up the disk that `folder` is on but for `leave` bytes."""
    with open(folder / ".filler", "ab", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(bytes(4096))
    os.truncate(folder / ".filler", (folder / ".filler").stat().st_size - leave)
