"""A real PostgreSQL for the tests: its own folder, its own port, gone afterwards."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def postgres_server():
    """Yields the URL, without a database, of a server whose user `pod` has a password."""
    bin, home = binaries(), Path(tempfile.mkdtemp(prefix="pod-postgres-"))
    # the server refuses to run as root
    user = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(home, "postgres")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("POD_", "PG"))}  # it belongs to no test's workspace
    kw = dict(check=True, capture_output=True, text=True, cwd=home, env=env, **user)
    try:
        (home / "password").write_text("se:cret@1")
        (home / "password").chmod(0o644)
        auth = ["--auth=scram-sha-256", f"--pwfile={home / 'password'}", "--username=pod"]
        subprocess.run([bin / "initdb", "-D", home / "data", "-E", "UTF8", "--no-sync", *auth], **kw)
        port = free_port()
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run([bin / "pg_ctl", "-D", home / "data", "-w", "-l", home / "log", "-o", options, "start"], **kw)
        try:
            yield f"postgresql://pod:se%3Acret%401@127.0.0.1:{port}/"
        finally:
            subprocess.run([bin / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop"], **kw)
    finally:
        shutil.rmtree(home, ignore_errors=True)
