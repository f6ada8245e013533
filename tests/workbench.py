"""A running workbench: its process, its address, its kernels."""

import contextlib
import re
import signal

import psutil


def is_kernel(process: psutil.Process) -> bool:
    """Whether a process, which may end just now, is a kernel."""
    with contextlib.suppress(psutil.Error):
        return "ipykernel_launcher" in " ".join(process.cmdline())
    return False


class Bench:
    def __init__(self, pod, *args):
        self.process = pod.start("up", "--no-browser", "--port", "0", *args)
        line = self.process.stdout.readline()
        assert (m := re.search(r"http://\S+?:(\d+)(/\S*)", line)), f"{line}\n{self.process.stderr.read()}"
        self.port, self.ended = int(m[1]), False
        self.base, _, self.token = m[2].partition("?token=")
        self.url = f"http://127.0.0.1:{self.port}{self.base}"

    def kernels(self) -> list[psutil.Process]:
        return [c for c in psutil.Process(self.process.pid).children(recursive=True) if is_kernel(c)]

    def end(self, number=signal.SIGINT) -> tuple[int, str]:
        self.ended = True  # an open page may now miss its server
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err
