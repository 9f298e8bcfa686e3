"""Sources of text, and how it is cut into sequences of tokens. The built-in one is the running Python's own library."""

import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slt_jax.text.tokenizers import Tokenizer

#: Folders of the standard library that hold no source of its own: installed packages, and files that are broken to
#: test how they are read.
_LEFT_OUT = ("site-packages", "dist-packages", "test", "tests")


def standard_library() -> Iterator[str]:
    """The source of the running Python's standard library, file by file in the order of their paths.

    Nothing is downloaded, and it is the same text for one version of Python. Tests and installed packages are left out.

    >>> next(standard_library()).startswith('\"\"\"')
    True
    """
    root = Path(sysconfig.get_path("stdlib"))
    # paths by their parts, not by the order of a file system
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        if not set(path.relative_to(root).parts[:-1]) & set(_LEFT_OUT):
            yield path.read_text(encoding="utf-8", errors="replace")


def files(place: Path | str) -> Iterator[str]:
    """A text file, or every file below a folder in the order of their paths; hidden ones are left out.

    Raises:
      ValueError: there is no such file or folder, it is empty, or a file is not UTF-8 text.

    >>> files("/nowhere")
    Traceback (most recent call last):
        ...
    ValueError: text: /nowhere: no such file or folder.
    """
    place = Path(place)
    if not place.exists():
        raise ValueError(f"text: {place}: no such file or folder.")
    below = (path for path in place.rglob("*") if path.is_file())
    paths = [place] if place.is_file() else sorted(path for path in below if not _hidden(path.relative_to(place)))
    if not paths:
        raise ValueError(f"text: {place}: holds no file; pass a folder of text files.")
    return map(_text_of, paths)


def dataset(name: str, split: str = "train", column: str = "text") -> Iterator[str]:
    """The texts of a Hugging Face dataset, one after the other as they come; only what is used is fetched.

    Args:
      name: On the Hub, or a folder that ``datasets`` reads.
      split: Which part.
      column: Which entry of an example is its text.

    Raises:
      ValueError: ``datasets`` is not installed, there is no such dataset or split, or it has no such column.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"text: to read the dataset {name!r}, pip install 'slt_jax[hub]'; or pass a folder of text files."
        ) from error
    try:
        examples = datasets.load_dataset(name, split=split, streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        message = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"text: the dataset {name!r} cannot be read ({type(error).__name__}: {message}).") from error
    return _column(name, examples, column)


def sequences(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    length: int,
    count: int | None = None,
    *,
    each: int | None = None,
    separator: int | None = None,
) -> np.ndarray:
    """Sequences of ``length`` tokens, shape ``(n, length)``, of which no token is in two.

    Args:
      texts: One after the other; they are read until there are ``count`` sequences.
      tokenizer: Turns text into tokens.
      length: Tokens of a sequence.
      count: How many; ``None`` for all there are.
      each: Only so many of each text, evenly spread over it, for a sample of many texts; a sequence then lies in one
        text. ``None`` for all of one text after the other, joined; what is left at the end is dropped.
      separator: A token after each text, where they are joined.

    Raises:
      ValueError: a number is out of range, or there is less text than that.

    >>> from slt_jax.text import byte_tokenizer
    >>> sequences(["abcd", "efgh", "ijkl"], byte_tokenizer(), 3, 2).tolist()
    [[97, 98, 99], [100, 101, 102]]
    >>> sequences(["abcdefg", "hijk"], byte_tokenizer(), 3, each=1).tolist()
    [[100, 101, 102], [104, 105, 106]]
    """
    for name, value in (("length", length), ("count", count), ("each", each)):
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < 1):
            raise ValueError(f"{name}: got {value!r}; pass an integer of at least 1.")
    found: list[np.ndarray] = []
    have, rest = 0, np.zeros(0, np.int32)
    for text in texts:
        tokens = tokenizer.encode(text)
        if each is None:
            ends = tokens if separator is None else np.append(tokens, np.int32(separator))
            whole, rest = _cut(np.concatenate([rest, ends]), length)
        else:
            whole = _spread(_cut(tokens, length)[0], each)
        found.append(whole)
        have += len(whole)
        if count is not None and have >= count:
            break
    if not have or (count is not None and have < count):
        raise ValueError(
            f"text: gives {have} sequences of {length} tokens, {count or 1} are asked for; pass more text, fewer or "
            "shorter sequences."
        )
    return np.concatenate(found)[:count].astype(np.int32)


def _cut(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole sequences, and the tokens that are left."""
    whole = len(tokens) // length
    return tokens[: whole * length].reshape(whole, length), tokens[whole * length :]


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, each from the middle of an equal share of them."""
    if len(rows) <= most:
        return rows
    return rows[((np.arange(most) + 0.5) * len(rows) / most).astype(int)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {path} is not UTF-8 text ({error.reason}); remove or convert it.") from error


def _column(name: str, examples: Iterable[Any], column: str) -> Iterator[str]:
    for example in examples:
        if column not in example:
            raise ValueError(f"text: the dataset {name!r} has no column {column!r}; there are {sorted(example)}.")
        if not isinstance(example[column], str):
            kind = type(example[column]).__name__
            raise ValueError(f"text: the column {column!r} of the dataset {name!r} holds a {kind}, no text.")
        yield example[column]
