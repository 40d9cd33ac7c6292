"""A defence from a Python file of one's own, without packaging it: ``train --defence my_defence.py:MyDefence``."""

from __future__ import annotations

import importlib.util
import re
import sys
import typing
from pathlib import Path
from types import ModuleType

from hierbench.defences.catalogue import DEFENCES, DefenceSpec
from hierbench.defences.settings import DefenceSettings
from hierbench.errors import InputError

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)")


def is_local(reference: str) -> bool:
    """Whether a name is ``<file>.py:<class>``.

    >>> is_local("folder/mine.py:Mine"), is_local("tecoa")
    (True, False)
    """
    return _REFERENCE.fullmatch(reference) is not None


def register_local(reference: str) -> str:
    """Run the file, add its class to ``DEFENCES``, and return the defence's name.

    The file is code and runs with all your rights: name only files you would run anyway. A file that does not load, a
    class that is none, or a name that is taken raises ``InputError``.
    """
    from hierbench.defences.base import Defence

    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(f"--defence: {reference!r} should be a name or <file>.py:<class>")
    path = Path(match["file"])
    module = _run(path)
    found = getattr(module, match["name"], None)
    if not (isinstance(found, type) and issubclass(found, Defence)):
        raise InputError(f"--defence: {path} has no subclass of Defence called {match['name']!r}")
    name = getattr(found, "name", None)
    if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,49}", name)):
        raise InputError(f"--defence: {path}: {match['name']}.name should be lower-case letters, digits, _ or -")
    if name in DEFENCES:
        raise InputError(f"--defence: {path}: a defence called {name!r} exists; give {match['name']}.name another")
    settings = _settings_of(found)
    if settings.__module__ != module.__name__:
        module.__dict__.setdefault(settings.__name__, settings)
    summary = (found.__doc__ or "").strip().partition("\n")[0]
    DEFENCES.add(
        name,
        DefenceSpec(
            name=name,
            title=name,
            summary=summary,
            source=str(path),
            trains=(),
            implementation=f"{module.__name__}:{match['name']}",
            settings=f"{module.__name__}:{settings.__name__}",
        ),
    )
    return name


def _run(path: Path) -> ModuleType:
    name = f"hierbench_local_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"--defence: {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"--defence: {path} does not load ({type(error).__name__}: {error})") from error
    return module


def _settings_of(defence: type) -> type[DefenceSettings]:
    """Return the settings that ``class Mine(Defence[MySettings])`` names."""
    for kind in defence.__mro__:
        for base in getattr(kind, "__orig_bases__", ()):
            for argument in typing.get_args(base):
                if isinstance(argument, type) and issubclass(argument, DefenceSettings):
                    return argument
    return DefenceSettings
