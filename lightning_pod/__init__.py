"""The notebook you can pip install, open as an app, and scale to a cluster."""

__version__ = "0.1.0"

# Names are found when they are first asked for: `import lightning_pod` brings in neither torch nor Lightning.
_PUBLIC = {
    "ImageData": "core.data",
    "Classifier": "core.classifier",
    "Pretrainer": "core.pretrain",
    "PodError": "core.config",
    "fit": "train.fit",
    "find_lr": "train.find_lr",
    "Run": "train.runs",
    "runs": "train.runs",
    "compare": "train.runs",
    "load_run": "train.runs",
    "tune": "train.tune",
    "Study": "train.tune",
    "load_study": "train.tune",
    "diagnose": "train.diagnose",
    "out_of_sample": "train.diagnose",
    "App": "app.flow",
    "Flow": "app.flow",
    "Work": "app.work",
    "Drive": "app.drive",
}
__all__ = [*_PUBLIC]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__():
    return [*globals(), *_PUBLIC]
