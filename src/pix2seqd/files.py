"""Reading and writing files atomically, and `InputError`, which users see for bad input."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class InputError(Exception):
    """The user's input cannot be used. The message is one line with the file and the cure; the CLI exits with 2."""


def require(purpose: str, extra: str, *packages: str) -> None:
    """Refuse to begin what needs packages of an extra (pyproject.toml) that are not installed.

    Args:
        purpose: what needs them, as the message calls it.
        extra: the extra that brings them.
        packages: as they are imported.

    Raises:
        InputError: one of them is missing.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        names = ", ".join(missing)
        raise InputError(f'{purpose} needs packages that are not installed ({names}); pip install "pix2seqd[{extra}]"')


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` on success and is removed on failure.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.touch()
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); choose a writable place") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the contents of a file are on the disk."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically; numbers that JSON lacks (NaN, infinity) become null."""
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | Path | Traversable) -> Any:
    """Read JSON.

    Raises:
        InputError: missing, unreadable or not JSON.
    """
    path = Path(path) if isinstance(path, str) else path
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a JSON file; give a file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it again") from error


def printable(name: str) -> str:
    """The name with bytes that are not valid UTF-8 as hexadecimal escapes, so that it can be printed and saved."""
    return name.encode("utf-8", "backslashreplace").decode()
