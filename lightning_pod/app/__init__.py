"""The app runtime: Flows that decide, Works that run in processes of their own, and files between them."""

# Names are found when they are first asked for: `import lightning_pod.app` brings in no torch.
_MODULES = {
    "state": "ConflictError Dict List",
    "drive": "Drive Path Payload",
    "work": "BuildConfig CloudCompute Work",
    "flow": "App Flow StaticWebFrontend StreamlitFrontend VoilaFrontend",
    "script": "BashWork FabricMultiNode LightningTrainerMultiNode MultiNode PopenPythonScript PyTorchSpawnMultiNode "
    "PythonServer ServeGradio ServeStreamlit Tracer TracerPythonScript",
    "local": "Harness",
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names.split()}
_OLD = {f"Lightning{name}": name for name in ("App", "Flow", "Work")}
__all__ = [*_PUBLIC, *_OLD]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    name = _OLD.get(name, name)
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
