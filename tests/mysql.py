"""A real MariaDB for the tests: its own folder, its own port, gone afterwards."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from postgres import free_port


def binary() -> str | None:
    """The server's program."""
    return shutil.which("mariadbd") or next((p for p in ("/usr/sbin/mariadbd",) if os.access(p, os.X_OK)), None)


@contextlib.contextmanager
def mysql_server():
    """Yields the URL, without a database, of a server whose user `pod` has a password and may do everything."""
    home = Path(tempfile.mkdtemp(prefix="pod-mysql-"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("POD_")}  # it belongs to no test's workspace
    me = ["--user=root"] if os.geteuid() == 0 else []
    port, data = free_port(), f"--datadir={home / 'data'}"
    (home / "first.sql").write_text("CREATE USER 'pod'@'127.0.0.1' IDENTIFIED BY 'se:cret@1';\n"
                                    "GRANT ALL ON *.* TO 'pod'@'127.0.0.1';\n")  # fmt: skip
    try:
        kw = dict(cwd=home, env=env)
        made = ["mariadb-install-db", "--no-defaults", data, *me, "--auth-root-authentication-method=normal"]
        subprocess.run([*made, "--skip-test-db"], check=True, capture_output=True, **kw)
        options = [f"--socket={home / 's'}", f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve",
                   f"--init-file={home / 'first.sql'}", "--innodb-flush-log-at-trx-commit=0"]  # fmt: skip
        with open(home / "log", "wb") as log:
            server = subprocess.Popen([binary(), "--no-defaults", data, *me, *options], stdout=log, stderr=log, **kw)
        try:
            url = f"mysql://pod:se%3Acret%401@127.0.0.1:{port}/"
            _wait_for(url, server, home / "log")
            yield url
        finally:
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 60):
    until = time.monotonic() + seconds
    while True:
        try:
            return execute(url, "SELECT 1")
        except Exception:
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.1)


def execute(url: str, sql: str):
    """Execute a statement at a server or database."""
    import sqlalchemy as sa

    engine = sa.create_engine(sa.make_url(url).set(drivername="mysql+pymysql"))
    try:
        with engine.begin() as c:
            c.execute(sa.text(sql))
    finally:
        engine.dispose()
