"""Read by each Python that a program under `pod run` starts: old import names, and a Trainer's reports.

Any Python may read this, of any version and environment: it is silent where this package isn't there.
"""

import os
import sys


def _read_the_environment_s_own():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != here]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        if mine is not None:
            sys.modules["sitecustomize"] = mine


def _prepare():
    if sys.version_info < (3, 11):  # noqa: UP036  any Python may read this
        return
    try:
        import lightning_pod.core.config  # noqa: F401
    except ImportError:
        return  # another environment
    if os.environ.get("POD_COMPAT"):
        from lightning_pod.app.compat import install

        install()
    if os.environ.get("POD_TRAINER_FD"):
        from lightning_pod.app.script import report_to_parent

        report_to_parent()


_read_the_environment_s_own()
_prepare()
