"""Imports the handler that the setting `handler` names; whatever is wrong with it becomes one line that says where."""

from __future__ import annotations

import importlib
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType

from gateway.application.service import Handler
from gateway.errors import InvalidSettings

EXPECTED = "handler: expected module:Class or module:router"
_IMPORTING = (__file__, "<frozen importlib", importlib.__file__)
"""Frames of whoever imports, between us and what is imported."""
_LIBRARIES = (str(Path(__file__).parents[1]), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))


def load_handler(name: str) -> Handler:
    """Import `module:Class` or `module:router` (any instance).

    Raises `InvalidSettings` in one line, whatever goes wrong: of an error in the module it has file and line.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InvalidSettings(f"{EXPECTED}, got {name!r}")
    module = _imported(module_name, name)
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise InvalidSettings(f"{EXPECTED}, got {name!r}: {error}") from None
    if not isinstance(found, Handler) and not (isinstance(found, type) and issubclass(found, Handler)):
        raise InvalidSettings(f"handler: expected a gateway.Handler, got {name!r}")
    return found if isinstance(found, Handler) else _made(found, name)


def _imported(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidSettings(f"{EXPECTED}, got {name!r}: {error}") from None
        raise _fault(module_name, error) from None
    except (TypeError, ValueError) as error:
        if not _place(error):  # the name cannot be a module's
            raise InvalidSettings(f"{EXPECTED}, got {name!r}: {error}") from None
        raise _fault(module_name, error) from None
    except (Exception, SystemExit) as error:
        raise _fault(module_name, error) from None


def _made(found: type[Handler], name: str) -> Handler:
    try:
        return found()
    except (Exception, SystemExit) as error:
        if isinstance(error, TypeError) and not _place(error):
            raise InvalidSettings(
                f"handler: expected a class that is called without arguments, got {name!r}: {error}"
            ) from None
        raise _fault(name, error) from None


def _fault(what: str, error: BaseException) -> InvalidSettings:
    said = error.msg if isinstance(error, SyntaxError) else str(error).partition("\n")[0]
    return InvalidSettings(f"handler: {what} raised {type(error).__name__}: {said}{_place(error)}")


def _place(error: BaseException) -> str:
    """Say in which file and line an error arose, and what is written there; "" where it is about the name alone."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_IMPORTING)]
    if not frames:
        return ""
    # Where a library raises, the line that called it is the application's to mend.
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith(_LIBRARIES)), frames[-1])
    return f" ({last.filename}, line {last.lineno})"
