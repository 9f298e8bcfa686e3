"""Tokenizers: bytes, pairs of them learned from text, or a published ``tokenizer.json``."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_BYTES = 256


class Tokenizer(NamedTuple):
    """Text to tokens and back.

    Attributes:
      encode: ``encode(text) -> tokens``, shape ``(T,)``, int32.
      decode: ``decode(tokens) -> text``; ``decode(encode(text)) == text`` for ``byte_tokenizer`` and
        ``train_tokenizer``.
      vocabulary: Number of tokens.
    """

    encode: Callable[[str], np.ndarray]
    decode: Callable[[Sequence[int] | np.ndarray], str]
    vocabulary: int


def byte_tokenizer() -> Tokenizer:
    """Every byte of the text in UTF-8 is a token: a vocabulary of 256.

    >>> tokenizer = byte_tokenizer()
    >>> tokenizer.encode("λ=1").tolist(), tokenizer.decode(tokenizer.encode("λ=1"))
    ([206, 187, 61, 49], 'λ=1')
    """
    return Tokenizer(_encode_bytes, _decode_bytes, _BYTES)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-pair encoding learned from text: the pair of neighbours that is most frequent becomes a token, and again.

    It starts from all 256 bytes, so that any text can be encoded and decoded again without loss; pairs never reach over
    words. The same texts give the same tokens.

    Args:
      texts: What pairs are counted in.
      vocabulary: Number of tokens at most; fewer where the text has no more pairs that occur twice.

    Raises:
      ValueError: the vocabulary is smaller than 256; ``tokenizers`` is not installed.

    Source: Sennrich, Haddow & Birch 2016 (arXiv 1508.07909); over bytes, Radford et al. 2019. By ``tokenizers``.
    """
    if isinstance(vocabulary, bool) or not hasattr(vocabulary, "__index__") or vocabulary < _BYTES:
        raise ValueError(f"vocabulary: got {vocabulary!r}; pass an integer of at least {_BYTES}, one token a byte.")
    library = _library()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return _tokenizer_of(model)


def read_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer of a published model, from its ``tokenizer.json``, with no tokens of its own at either end.

    Raises:
      ValueError: there is no such file, it is no tokenizer, or ``tokenizers`` is not installed.

    >>> read_tokenizer("/nowhere/tokenizer.json")
    Traceback (most recent call last):
        ...
    ValueError: tokenizer: /nowhere/tokenizer.json: is no file; pass a tokenizer.json.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"tokenizer: {path}: is no file; pass a tokenizer.json.")
    library = _library()
    # looked at first, because all that the library itself raises is Exception
    try:
        content = path.read_text(encoding="utf-8")
        described = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"tokenizer: {path}: is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(described, dict) or not isinstance(described.get("model"), dict):
        raise ValueError(f"tokenizer: {path}: describes no tokenizer, it has no 'model'; pass a tokenizer.json.")
    return _tokenizer_of(library.Tokenizer.from_str(content))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "tokenizer: tokenizers is not installed, which splits text as the model saw it: "
            "pip install 'slt_jax[hub]'; or ask for bytes where the model was trained on bytes."
        ) from error
    return tokenizers


def _tokenizer_of(model: Any) -> Tokenizer:
    return Tokenizer(partial(_encode_pairs, model), partial(_decode_pairs, model), model.get_vocab_size())


def _encode_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)


def _decode_bytes(tokens: Sequence[int] | np.ndarray) -> str:
    return bytes(np.asarray(tokens, np.uint8)).decode("utf-8", errors="replace")


def _encode_pairs(model: Any, text: str) -> np.ndarray:
    return np.array(model.encode(text, add_special_tokens=False).ids, np.int32)


def _decode_pairs(model: Any, tokens: Sequence[int] | np.ndarray) -> str:
    return model.decode([int(token) for token in tokens], skip_special_tokens=False)
