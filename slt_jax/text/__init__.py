"""Text as sequences of tokens."""

from slt_jax.text.corpus import dataset, files, sequences, standard_library
from slt_jax.text.tokenizers import Tokenizer, byte_tokenizer, read_tokenizer, train_tokenizer

__all__ = [
    "Tokenizer",
    "byte_tokenizer",
    "dataset",
    "files",
    "read_tokenizer",
    "sequences",
    "standard_library",
    "train_tokenizer",
]
