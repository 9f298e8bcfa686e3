"""A scan of a pretrained language model: its own loss, token by token, on text, at revisions that are published."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from slt_jax import storage
from slt_jax import text as texts
from slt_jax.models.neox import next_token_loss
from slt_jax.problem import Problem
from slt_jax.spectroscopy import Checkpoint, Subject
from slt_jax.types import PyTree

#: Files of the built-in text that sequences come from at least, where so many are asked for.
_FILES = 200
_CONTEXT = 128
#: The tokenizer that is asked for by this name instead of a file.
_BYTES = "bytes"


class PretrainedScan(NamedTuple):
    """What is measured, where, and what these are checkpoints of.

    Attributes:
      subject: The loss on the text.
      checkpoints: In the order of their steps, each fetched and read when its turn comes.
      source: The name of the model and its revisions.
    """

    subject: Subject
    checkpoints: list[Checkpoint]
    source: str


def pretrained_scan(
    reference: str,
    *,
    text: str | None = None,
    sequences: int = 128,
    context: int | None = None,
    tokenizer: str | None = None,
) -> PretrainedScan:
    """A scan of a GPT-NeoX model (Pythia): ``loss_fn(params, tokens)`` is ``-log p`` of each next token, in nats.

    Args:
      reference: ``hf:FOLDER@step0,step1000`` or ``hf:OWNER/NAME@step0,step1000``, as for ``storage.pretrained``.
      text: A file or a folder of text files, or ``hf:NAME`` for a dataset; ``None`` for the running Python's own
        standard library.
      sequences: How many, the examples that ``n`` counts.
      context: Tokens of each; ``None`` for 128, or as many as the model takes.
      tokenizer: A ``tokenizer.json``, or ``"bytes"``; ``None`` for the model's own.

    Raises:
      ValueError: the model cannot be found or read; its tokenizer cannot, or has more tokens than the model; the text
        is too short, or the context longer than the model's.

    Not to be believed where the text is not of the kind that the model was trained on: the loss is then far from a
    minimum, and the verdict of a reading says so.
    """
    model = storage.pretrained(reference)
    context = min(_CONTEXT, model.network.length) if context is None else context
    if not 2 <= context <= model.network.length:
        raise ValueError(f"--context: got {context}; this model takes sequences of 2 to {model.network.length} tokens.")
    if sequences < 1:
        raise ValueError(f"--sequences: got {sequences}; pass at least 1.")
    chosen = _tokenizer(model, tokenizer)
    vocabulary = model.network.vocabulary
    if chosen.vocabulary > vocabulary:
        raise ValueError(
            f"--tokenizer: has {chosen.vocabulary} tokens, the model {vocabulary}; pass the model's own tokenizer.json."
        )
    end = None if tokenizer == _BYTES else storage.read_config(model.folder).get("eos_token_id")
    separator = end if isinstance(end, int) and 0 <= end < vocabulary else None
    each = None if text else -(-sequences // _FILES)
    tokens = texts.sequences(_source(text), chosen, context, sequences, each=each, separator=separator)
    problem = Problem(next_token_loss(model.network), _template(model, tokens), tokens)
    return PretrainedScan(Subject(problem), model.checkpoints, model.name)


def _source(text: str | None) -> Iterable[str]:
    if text is None:
        return texts.standard_library()
    if text.startswith(storage.PREFIX):
        return texts.dataset(text.removeprefix(storage.PREFIX))
    return texts.files(text)


def _tokenizer(model: storage.Pretrained, chosen: str | None) -> texts.Tokenizer:
    if chosen == _BYTES:
        return texts.byte_tokenizer()
    if chosen is not None:
        return texts.read_tokenizer(chosen)
    # revisions that are folders may share that of the folder above them
    for folder in (model.folder, model.folder.parent):
        if (folder / storage.TOKENIZER).is_file():
            return texts.read_tokenizer(folder / storage.TOKENIZER)
    raise ValueError(
        f"{model.folder}: has no {storage.TOKENIZER}; pass --tokenizer FILE, or --tokenizer bytes if this model was "
        "trained on bytes: to any other, bytes are noise."
    )


def _template(model: storage.Pretrained, tokens: np.ndarray) -> PyTree:
    """Parameters of the right shapes, which take no memory: their values are never looked at."""
    shapes = jax.eval_shape(model.network.init, jax.random.key(0), tokens[:1])["params"]
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
