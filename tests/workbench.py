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


def tree(pid: int) -> list[psutil.Process]:
    """What a process has started."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


class Bench:
    def __init__(self, pod, *args, browser: bool = False):
        self.process = pod.start("up", *([] if browser else ["--no-browser"]), "--port", "0", *args)
        try:
            line = self.process.stdout.readline()
            m = re.search(r"http://\S+?:(\d+)(/\S*)", line)
            assert m, f"{line}\n{self.process.communicate(timeout=60)}"
        except BaseException:
            self.kill()
            raise
        self.port, self.ended = int(m[1]), False
        self.base, _, self.token = m[2].partition("?token=")
        self.url = f"http://127.0.0.1:{self.port}{self.base}"

    def kernels(self) -> list[psutil.Process]:
        return [c for c in tree(self.process.pid) if is_kernel(c)]

    def end(self, number=signal.SIGINT, timeout: float = 60) -> tuple[int, str]:
        self.ended = True  # an open page may now miss its server
        self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=timeout)
        except BaseException:
            self.kill()
            raise
        return self.process.returncode, out + err

    def kill(self):
        """End it and all that it started, when it doesn't do so itself."""
        for p in [*tree(self.process.pid), self.process]:
            with contextlib.suppress(psutil.Error):
                p.kill()
        self.process.communicate()
