"""The app runtime: Flows that decide, Works that run in processes of their own, and files between them."""

# Names are found when they are first asked for: `import lightning_pod.app` brings in no torch.
_PUBLIC = {
    "App": "flow",
    "BashWork": "script",
    "BuildConfig": "work",
    "CloudCompute": "work",
    "ConflictError": "state",
    "Dict": "state",
    "Drive": "drive",
    "Flow": "flow",
    "Harness": "local",
    "LightningTrainerMultiNode": "script",
    "List": "state",
    "MultiNode": "script",
    "Path": "drive",
    "Payload": "drive",
    "PopenPythonScript": "script",
    "PythonServer": "script",
    "ServeGradio": "script",
    "ServeStreamlit": "script",
    "StaticWebFrontend": "flow",
    "StreamlitFrontend": "flow",
    "Tracer": "script",
    "TracerPythonScript": "script",
    "VoilaFrontend": "flow",
    "Work": "work",
}
_OLD = {f"Lightning{name}": name for name in ("App", "Flow", "Work")}
__all__ = [*_PUBLIC, *_OLD]


def __getattr__(name):
    if name not in _PUBLIC and name not in _OLD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    name = _OLD.get(name, name)
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
