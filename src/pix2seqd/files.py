"""Reading and writing files atomically, and `InputError`, which users see for bad input."""

import glob
import json
import math
import os
import secrets
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

TEMPORARY = ".*.part"
"""Pattern of the temporary files that `write_atomically` makes."""
MAX_MEMORY = 2**30
"""Bytes of memory that the content of a JSON, XML, CSV or text file may take, as `require_memory` estimates it."""
MAX_GROWTH = 16
"""Bytes of memory for each byte of a larger one: annotations as tools write them take 5 to 14."""
MAX_JSON = 2**29
"""Bytes of the largest JSON file that is read."""
MAX_TEXT = 2**28
"""Bytes of the largest text file that is read."""
JSON_COSTS = {b"{": 184, b"[": 104, b",": 40}
"""Bytes of memory for each such byte of a JSON text, as measured."""
XML_COSTS = {b"<": 120, b"=": 250}
"""The same of XML."""
CSV_COSTS = {b"\n": 1000, **dict.fromkeys((b",", b";", b"\t"), 80)}
"""The same of a CSV file whose rows are annotations."""
LINE_COSTS: dict[bytes, int] = dict.fromkeys((b"\n", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e"), 90)
"""The same of lines of text."""
MAX_YAML = 2**20
"""Characters of the longest YAML text that is read."""
MAX_MESSAGE = 1500
"""Characters of the longest message."""
MAX_DEPTH = 50
"""Sections within sections of a YAML text."""
MAX_DIGITS = 100
"""Characters of the longest number in a YAML text."""
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's control characters, bytes that are no text, and separators of lines and paragraphs."""
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show the text after them in another order."""


class InputError(Exception):
    """The user's input cannot be used. The message is one line with the file and the cure; the CLI exits with 2.

    Characters that a terminal obeys instead of showing them (names from files may hold some) become escapes, and the
    middle of a very long message is left out.
    """

    def __init__(self, message: str = "") -> None:
        line = printable(" ".join(message.splitlines()))
        super().__init__(line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE // 2]} ... {line[-500:]}")


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

    File and name are on the disk when this ends. A process that is killed leaves the temporary file, see `TEMPORARY`.

    Raises:
        InputError: the folder does not exist or cannot be written to; `path` is a device or a pipe.
    """
    path = Path(path)
    # Two processes may share a number where each is in a container of its own.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    try:
        require_regular(path)
        temporary.touch(exist_ok=False)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); choose a writable place") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def write_together(out: Path) -> Iterator[Path]:
    """Yield a temporary folder in `out`. Its files and folders move to `out` on success and are removed on failure.

    JSON moves last, because it names the others. One process at a time does this in a folder. What a killed one left is
    removed at the next start, or moved if it was complete. `out` is made, and removed again if it stays empty.

    Raises:
        InputError: `out` cannot be written to, another process does this in it, or it has one of the names already.
    """
    made = not out.exists()
    stage, complete = out / ".together.part", out / ".together.complete"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(out / ".together.lock"):
            _move_all(complete, out)
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir()
            try:
                yield stage
                for folder, _, names in os.walk(stage):
                    for path in (Path(folder, name) for name in names):
                        if not path.is_symlink():
                            sync(path)
                    sync_folder(Path(folder))
                _check_free(stage, out)
                stage.rename(complete)
                _move_all(complete, out)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write to the folder {out} ({error.strerror or error}); choose another") from error
    finally:
        if made:
            with suppress(OSError):
                out.rmdir()


def _move_all(folder: Path, out: Path) -> None:
    """Move everything from one folder to another one, and remove the first, if it is there."""
    if folder.is_dir() and not folder.is_symlink():  # no other place is emptied
        _check_free(folder, out)
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".json"):
            path.rename(out / path.name)
        folder.rmdir()
        sync_folder(out)


def _check_free(folder: Path, out: Path) -> None:
    if held := [out / path.name for path in folder.iterdir() if os.path.lexists(out / path.name)]:
        raise InputError(f"{held[0]} exists already; choose another folder")


@contextmanager
def exclusive_lock(lock: Path) -> Iterator[None]:
    """Keep other processes that ask for the same lock out within this context; the folder of its file exists.

    Raises:
        InputError: another process has it, or the folder cannot be written to.
    """
    from filelock import FileLock

    held = FileLock(lock, blocking=False)
    busy = f"another process writes into {lock.parent}; wait for it, or choose another folder"
    with lock_errors(lock.parent, busy, "another folder"):
        held.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes it when it is released
            lock.unlink()
        held.release()


@contextmanager
def lock_errors(folder: Path, busy: str, other: str) -> Iterator[None]:
    """Within this context the errors of a lock in `folder` become an InputError.

    Args:
        folder: the folder of the lock.
        busy: what is said if another process has the lock.
        other: what the user may choose instead of a folder that cannot be used.

    Raises:
        InputError: another process has the lock, or the folder cannot be written to.
    """
    from filelock import Timeout

    try:
        yield
    except Timeout as error:
        raise InputError(busy) from error
    except NotImplementedError as error:
        raise InputError(f"the file system of {folder} has no locks; choose {other}") from error
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose {other}") from error


def leftovers(path: Path) -> list[Path]:
    """The temporary files of `write_atomically` for `path`, which stay where a process is killed."""
    return list(path.parent.glob(f".{glob.escape(path.name[:40])}{TEMPORARY}"))


def sync(path: Path) -> None:
    """Wait until the contents of a file are on the disk."""
    with path.open("r+b") as written:  # Windows cannot do it with a file that is open for reading
        os.fsync(written.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can open folders (Windows cannot)."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def require_regular(path: Path) -> None:
    """Refuse a device, pipe or socket where a file is expected: reading it might never end.

    Raises:
        InputError: it is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a device or a pipe; give an ordinary file")


def resolved(path: str | Path) -> Path:
    """The absolute path without links; links that lead in a circle, of which `Path.resolve` makes an error, stay."""
    return Path(os.path.realpath(path))


def is_file(path: Path | Traversable) -> bool:
    """Whether there is a file of this name, which comes from another file and may be no name at all."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero
        return False


def is_dir(path: Path | Traversable) -> bool:
    """Whether there is a folder of this name, as `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and those below it, also in linked folders; each folder once, as links may be rings.

    Links to nothing are among them, so that reading one says that its file is missing.

    Raises:
        InputError: one of the folders may not be listed, and is not hidden, as those of macOS on a disk.
    """

    def refuse(error: OSError) -> None:  # by default, `walk` leaves such a folder out
        hidden = any(part.startswith(".") for part in Path(error.filename).relative_to(folder).parts)
        if not (hidden or isinstance(error, FileNotFoundError | NotADirectoryError)):
            raise InputError(f"cannot list {error.filename} ({error.strerror}); check its permissions") from error

    waiting, seen = [folder], set[Path]()
    while waiting:
        for name, folders, files in os.walk(waiting.pop(), onerror=refuse):
            home = Path(name)
            real = resolved(home)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [home / link for link in sorted(folders, reverse=True) if (home / link).is_symlink()]
            yield from (home / file for file in files)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically; numbers that JSON lacks (NaN, infinity) become null.

    Raises:
        InputError: it is nested too deep; or an error of `write_atomically`.
    """
    text = _json(content, f"the content of {path}", indent=1)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def json_line(content: Any) -> str:
    """`content` as one line of JSON; numbers that JSON lacks become null.

    Raises:
        InputError: it is nested too deep.
    """
    return _json(content, "an entry of the result")


def _json(content: Any, what: str, indent: int | None = None) -> str:
    try:
        try:
            text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)
        except ValueError:
            content = _finite(content)
            text = json.dumps(content, ensure_ascii=False, indent=indent)
        try:
            text.encode()
        except UnicodeEncodeError:  # halves of characters, which JSON can hold as escapes
            text = json.dumps(content, indent=indent)
        return text
    except RecursionError as error:
        raise InputError(f"{what} is nested too deep; make the files that it comes from flatter") from error


def write_png(path: str | Path, image: "Image") -> None:
    """Write an image as PNG, atomically, whatever the suffix of `path`."""
    with write_atomically(path) as temporary:
        image.save(temporary, format="PNG")


def encoded(image: "Image", kind: str = "PNG", **options: Any) -> bytes:
    """The content of an image file of a format of Pillow's."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def require_size(path: Path, limit: int) -> None:
    """Refuse a file above `limit` bytes, or what is no file, before it is read.

    Raises:
        InputError: it is.
        OSError: there is no such file.
    """
    require_regular(path)
    if (size := path.stat().st_size) > limit:
        raise InputError(f"{path} has {size:,} bytes; such a file has at most {limit:,}")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_memory(path: Path | Traversable, content: bytes, costs: Mapping[bytes, int], more: int = 0) -> None:
    """Refuse a text whose content would take more than `MAX_MEMORY` and `MAX_GROWTH` allow, before it is understood.

    Args:
        path: what the message calls it.
        content: the text, in UTF-8.
        costs: bytes of memory for each byte of a kind in the text.
        more: bytes of memory beside these.

    Raises:
        InputError: it would.
    """
    import numpy as np

    highest = int(np.frombuffer(content, np.uint8).max(initial=0))
    wide = 4 if highest >= 0xF0 else 2 if highest >= 0xC4 else 1  # bytes a character, of the text and of its parts
    needed = len(content) * (2 * wide if wide > 1 else 1) + more
    needed += sum(each * content.count(byte) for byte, each in costs.items())
    if needed > (allowed := max(MAX_MEMORY, MAX_GROWTH * len(content))):
        most = f"{needed / 1e9:.1f} GB of memory, and may take {allowed / 1e9:.1f}"
        raise InputError(f"{path} would take about {most}; split it into several files")


def read_json(path: str | Path | Traversable, limit: int | None = None) -> Any:
    """Read JSON.

    Args:
        path: the file.
        limit: its largest size in bytes; None: `MAX_JSON`, and its content in memory is limited, see `require_memory`.

    Raises:
        InputError: missing, unreadable, not a file, too large, not JSON, or with a key twice in an object.
    """
    path = Path(path) if isinstance(path, str) else path
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a JSON file; give a file")
    content = read_bytes(path, MAX_JSON if limit is None else limit)
    if limit is None:
        strings = content.count(b'"') // 2 - content.count(b":")  # those that are keys are in memory once
        require_memory(path, content, JSON_COSTS, 64 * max(0, strings))
    try:
        # UTF-8, -16 or -32, with or without a byte-order mark
        text = content.decode(json.detect_encoding(content), "surrogatepass")
        del content
        return json.loads(text, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it again") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose value would otherwise be the last one of a key that it has twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'the key "{key[:50]}" twice in one object; keep one')
    return found


def read_text(path: Path | Traversable, costs: Mapping[bytes, int] = LINE_COSTS) -> str:
    """A text file in UTF-8, with or without its mark.

    Args:
        path: the file.
        costs: what the caller makes of it, see `require_memory`.

    Raises:
        InputError: as `read_bytes` and `require_memory`, or it is not UTF-8.
    """
    content = read_bytes(path, MAX_TEXT)
    require_memory(path, content, costs)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it as UTF-8") from error


def read_bytes(path: Path | Traversable, limit: int) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        limit: its largest size in bytes; a member of a zip file is limited there.

    Raises:
        InputError: missing, unreadable, not a file, or too large.
    """
    try:
        if isinstance(path, Path):
            require_size(path, limit)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check its permissions") from error


def read_yaml(text: str, where: str) -> Any:
    """The content of a YAML text: plain values, without anchors, aliases and tags, which make much of little.

    Dates stay text.

    Args:
        text: at most `MAX_YAML` characters, nested at most `MAX_DEPTH` deep.
        where: what the message calls it.

    Raises:
        InputError: it is larger, deeper, has anchors, aliases or tags, a key twice or a number of more than
            `MAX_DIGITS` characters, or is not YAML.
    """
    import yaml

    if len(text) > MAX_YAML:
        raise InputError(f"{where} has {len(text):,} characters; YAML may have {MAX_YAML:,}")
    loader, depth = _yaml_loader(), 0
    try:
        for event in yaml.parse(text, loader):
            if getattr(event, "anchor", None) is not None:
                raise InputError(f"{where} has an anchor or alias (& or *); write its content out")
            if getattr(event, "tag", None) is not None:
                raise InputError(f"{where} is not valid YAML: it has the tag {event.tag}; write a plain value")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise InputError(f"{where} is nested more than {MAX_DEPTH} deep; make it flatter")
        return yaml.load(text, loader)  # only plain values
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


@cache
def _yaml_loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                repeated, _ = Counter(keys).most_common(1)[0]
                raise yaml.constructor.ConstructorError(None, None, f"the key {repeated!r} twice", node.start_mark)
            found = super().construct_mapping(node, deep)
            if len(found) < len(node.value):  # 1 and 1.0, or 1 and 0x1
                raise yaml.constructor.ConstructorError(None, None, "two keys that are the same", node.start_mark)
            return found

        def construct_number(self, node: Any) -> int:
            if len(node.value) > MAX_DIGITS:  # of some numbers, such as 1:1:1, the time grows as the square
                count = len(node.value)
                raise yaml.constructor.ConstructorError(None, None, f"a number of {count:,} digits", node.start_mark)
            return self.construct_yaml_int(node)

        def construct_date(self, node: Any) -> str:
            self.construct_yaml_timestamp(node)  # which refuses what is no date
            return node.value

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_number)
    Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_date)
    return Loader


def printable(name: str) -> str:
    """The name, with escapes for control characters, line breaks, changes of order and bytes that are no UTF-8."""
    if name.isprintable():  # most names; the rest of them may have spaces that `is_control` allows
        return name
    return "".join(_escape(character) if is_control(character) else character for character in name)


def a_few(names: Sequence[object], maximum: int = 5) -> str:
    """The first of several names, and how many others there are, for messages."""
    more = f" and {len(names) - maximum} more" if len(names) > maximum else ""
    return ", ".join(map(str, names[:maximum])) + more


def say(line: str, to_stderr: bool = False) -> None:
    """Print a line, as `printable` shows it. Every name that comes from outside is printed so."""
    print(printable(line), file=sys.stderr if to_stderr else None, flush=True)


def is_control(character: str) -> bool:
    """Whether a terminal obeys a character or cannot print it."""
    return character in _REORDERING or unicodedata.category(character) in _NO_TEXT


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
