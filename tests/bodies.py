"""Bodies of Jobs for the tests: imported by the Jobs' own processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from lightning_pod.core.config import workspace
from lightning_pod.core.job import Context, Job


def once_body(ctx: Context):
    """Leaves a line each time it is run."""
    fd = os.open(ctx.path / "ran.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)
    time.sleep(ctx.config.get("pause", 0))


def fast_body(ctx: Context):
    """Writes events and its status as fast as it can, until it is stopped."""
    i = 0
    while True:
        ctx.check()
        ctx.metrics(step=(i := i + 1), text="x" * (i % 3000))
        ctx.job._write(state="running", message="y" * (i % 5000))


def forking_body(ctx: Context):
    """Has a child that inherits its descriptors and outlives it."""
    if ctx.config["how"] == "fork":
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
    else:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        pid = child.pid
    ctx.metrics(child=pid)
    while True:
        time.sleep(1)


def stubborn_body(ctx: Context):
    """Obeys nothing, and has a child and a grandchild that don't either."""
    deaf = "import signal, time, subprocess as s, sys; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; "
    tell = "print(s.Popen([sys.executable, '-c', sys.argv[1]]).pid, flush=True); "
    wait = "time.sleep(600)"
    command = [sys.executable, "-c", deaf + tell + wait, deaf + wait]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ctx.metrics(child=child.pid, grandchild=int(child.stdout.readline()))
    while True:
        time.sleep(1)


def parent_body(ctx: Context):
    """Starts a Job from within a Job, then ends, or waits to be ended."""
    config = {"n": 10_000, "pause": 0.05}
    child = Job.create(workspace().jobs, "count", "lightning_pod.core.job:count_body", config).start()
    ctx.emit("child", id=child.id)
    until = time.monotonic() + 60
    while child.status != "running" and time.monotonic() < until:
        time.sleep(0.02)
    while ctx.config.get("wait"):
        ctx.check()
        time.sleep(0.02)


def failing_body(ctx: Context):
    """Fails with an error that nobody foresaw."""
    raise RuntimeError("the body failed")


def full_body(ctx: Context):
    """Uses up its disk, then goes on reporting."""
    i = 0
    while True:
        ctx.check()
        ctx.metrics(step=(i := i + 1), text="x" * 4000)


def dying_body(ctx: Context):
    """Counts, and is killed at its third number the first time."""
    done = max((e["step"] for e in ctx.job.events() if e["kind"] == "metrics"), default=0)
    for i in range(done + 1, 7):
        ctx.metrics(step=i)
        if i == 3:
            os.kill(os.getpid(), signal.SIGKILL)
