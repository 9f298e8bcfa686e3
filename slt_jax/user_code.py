"""Code of a user, named at the command line: found, called, and its mistakes told in one line."""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

#: What code of a user may raise, told in one line; anything else is shown with its traceback.
_USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def call_user(path: str) -> object:
    """What ``PKG.MOD:FUNC`` returns, called without arguments.

    Raises:
      ValueError: in one line: there is no such function, or what went wrong inside it and where.
    """
    function = _load_function(path)
    try:
        return function()
    except _USER_ERRORS as error:
        raise ValueError(f"--problem: {path} failed; {_told(error)}") from error


def _load_function(path: str) -> Callable[[], object]:
    module_name, separator, name = path.partition(":")
    if not separator:
        raise ValueError(f"--problem: got {path!r}; expected PKG.MOD:FUNC, as in mine.run:problem.")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"--problem: cannot import {module_name!r} ({error}); run where it can be found.") from error
    except _USER_ERRORS as error:
        raise ValueError(f"--problem: {module_name} cannot be loaded; {_told(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--problem: {module_name} has no function {name!r}.")
    return function


def _told(error: BaseException) -> str:
    """What went wrong in the user's own code, and in which line of it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    message = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {message}{where}"
