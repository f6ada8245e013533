"""Read by each Python that a program under `pod run` starts: old import names, and a Trainer's reports."""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _here]
_me = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # noqa: F401  the environment's own, where it has one
except ImportError:
    sys.modules["sitecustomize"] = _me
if os.environ.get("POD_COMPAT"):
    from lightning_pod.app.compat import install

    install()
if os.environ.get("POD_TRAINER_FD"):
    from lightning_pod.app.script import report_to_parent

    report_to_parent()
