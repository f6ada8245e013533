"""The names of lightning-app, read from its wheel without running it: `python scripts/old_names.py WHEEL`.

Writes lightning_pod/assets/lightning_app.json: for each module its classes, exceptions, functions, plain values, what
else stands in it, and the names that it takes from other modules of the package.
"""

import ast
import json
import sys
import zipfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "lightning_pod" / "assets" / "lightning_app.json"
TOP = "lightning_app"
CONVERSIONS = {"int": int, "float": float, "str": str, "bool": bool}


def value_of(node: ast.expr, known: dict):
    """What a constant is where no environment variable is set; raises `ValueError` where only running tells."""
    match node:
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[_, default]):
            return value_of(default, known)
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[_]):
            return None
        case ast.Call(func=ast.Name(id=name), args=[one]) if name in CONVERSIONS:
            return CONVERSIONS[name](value_of(one, known))
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return value_of(left, known) * value_of(right, known)
    return ast.literal_eval(node)


def statements(body: list):
    """All statements of a module, those below `if` and `try` too."""
    for node in body:
        match node:
            case ast.If():
                yield from statements([*node.body, *node.orelse])
            case ast.Try():
                yield from statements([*node.body, *node.orelse, *(s for h in node.handlers for s in h.body)])
            case _:
                yield node


def names_of(source: str) -> dict:
    """The names of one module by kind; "taken" says from which module of the package a name comes."""
    found = {"classes": [], "exceptions": [], "functions": [], "values": {}, "others": [], "taken": {}}
    for node in statements(ast.parse(source).body):
        match node:
            case ast.ClassDef(name=name, bases=bases):
                raises = any(ast.unparse(b).endswith(("Exception", "Error", "Warning")) for b in bases)
                found["exceptions" if raises else "classes"].append(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found["functions"].append(name)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ) if not name.startswith("__"):
                try:
                    json.dumps(given := value_of(value, found["values"]))
                    found["values"][name] = given
                except (ValueError, TypeError):
                    found["others"].append(name)
            case ast.ImportFrom(module=module, names=names) if (module or "").split(".")[0] == TOP:
                rest = module[len(TOP) + 1 :]
                found["taken"] |= {n.asname or n.name: rest for n in names if n.name != "*"}
    return {kind: sorted(set(v)) if isinstance(v, list) else v for kind, v in found.items() if v}


def modules_of(wheel: Path) -> dict[str, dict]:
    """Every module of the wheel that can be imported by name."""
    modules = {}
    with zipfile.ZipFile(wheel) as z:
        for file in z.namelist():
            parts = Path(file).with_suffix("").parts
            if Path(file).suffix != ".py" or parts[0] != TOP or not all(p.isidentifier() for p in parts):
                continue
            inside = parts[1:-1] if parts[-1] == "__init__" else parts[1:]
            if inside[:1] not in (("__main__",), ("__setup__",)):
                modules[".".join(inside)] = names_of(z.read(file).decode())
    return modules


if __name__ == "__main__":
    modules = modules_of(Path(sys.argv[1]))
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(names)}" for name, names in sorted(modules.items()))
    TARGET.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{len(modules)} modules into {TARGET}")
