"""Text becomes sequences of tokens: always the same ones, none twice, and back to the same text."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from slt_jax.text import byte_tokenizer, dataset, files, read_tokenizer, sequences, standard_library, train_tokenizer

TEXTS = ["", " two  spaces\n\tand a tab", "λ ≤ ½ · 🙂", "".join(map(chr, range(0x180))), "don't re-tokenise 2+2=4"]
SAMPLE = ["the cat and the hat and the bat sat\n" * 20, "def function(argument):\n    return argument\n" * 20]


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("tokenizers")
    return train_tokenizer(SAMPLE, 300)


# --- tokenizers


def test_bytes_and_back_is_the_same_text():
    tokenizer = byte_tokenizer()
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        assert tokens.dtype == np.int32
        assert tokenizer.decode(tokens) == text
        assert len(tokens) == len(text.encode())


def test_pairs_and_back_is_the_same_text_also_of_what_was_never_seen(pairs):
    for text in [*TEXTS, *SAMPLE]:
        assert pairs.decode(pairs.encode(text)) == text


def test_pairs_are_fewer_tokens_than_bytes_and_within_the_vocabulary(pairs):
    assert pairs.vocabulary <= 300
    tokens = pairs.encode(SAMPLE[0])
    assert len(tokens) < len(SAMPLE[0]) / 2
    assert tokens.max() < pairs.vocabulary


def test_pairs_are_the_same_in_another_process(pairs):
    program = (
        f"from slt_jax.text import train_tokenizer; t = train_tokenizer({SAMPLE!r}, 300); "
        f"print(t.encode({SAMPLE[1]!r} + {TEXTS[4]!r}).tolist())"
    )
    root = Path(__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=root)
    assert shown.stdout.strip() == str(pairs.encode(SAMPLE[1] + TEXTS[4]).tolist())


def test_a_published_tokenizer_is_read_with_no_tokens_of_its_own_at_the_ends(tmp_path):
    library = pytest.importorskip("tokenizers")
    words = library.models.WordLevel({"<start>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?")
    model = library.Tokenizer(words)
    model.pre_tokenizer = library.pre_tokenizers.Whitespace()
    model.post_processor = library.processors.TemplateProcessing(single="<start> $A", special_tokens=[("<start>", 0)])
    model.save(str(tmp_path / "tokenizer.json"))
    assert model.encode("a b").ids == [0, 1, 2]
    tokenizer = read_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.encode("a b a c").tolist() == [1, 2, 1, 3]
    assert tokenizer.vocabulary == 4


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    for content, message in (("{", "is not valid JSON"), ("[]", "describes no tokenizer"), ('{"a": 1}', "no 'model'")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_tokenizer(path)


def test_a_vocabulary_smaller_than_all_bytes_is_refused():
    for vocabulary in (255, 300.0, True):
        with pytest.raises(ValueError, match="at least 256"):
            train_tokenizer(SAMPLE, vocabulary)


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}")
    for made in (lambda: train_tokenizer(SAMPLE, 300), lambda: read_tokenizer(tmp_path / "tokenizer.json")):
        with pytest.raises(ValueError, match=r"pip install 'slt_jax\[hub\]'"):
            made()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'slt_jax\[hub\]'"):
        dataset("anything")


# --- sources


def test_the_built_in_text_is_the_standard_library_in_one_order():
    texts = list(standard_library())
    assert texts == list(standard_library())
    assert (Path(sysconfig.get_path("stdlib")) / "abc.py").read_text(encoding="utf-8") in texts
    assert sum(map(len, texts)) > 5_000_000
    # neither an installed package nor a test
    assert not any("jax.Array" in text for text in texts)


def test_files_of_a_folder_come_in_the_order_of_their_paths_and_hidden_ones_do_not(tmp_path):
    for name, content in (("b.txt", "B"), ("a/z.txt", "Z"), ("a/y.txt", "Y"), (".git/x", "X"), ("a/.hidden", "H")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert list(files(tmp_path)) == ["Y", "Z", "B"]
    assert list(files(tmp_path / "b.txt")) == ["B"]
    hidden = tmp_path / ".git"
    assert list(files(hidden)) == ["X"]  # what is asked for is not hidden


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no file"):
        files(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"picture\.png is not UTF-8 text"):
        list(files(tmp_path))


def test_a_dataset_is_read_text_by_text(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"text": "one", "number": 1}\n{"text": "two", "number": 2}\n')
    assert list(dataset(str(tmp_path))) == ["one", "two"]
    with pytest.raises(ValueError, match=r"has no column 'words'; there are \['number', 'text'\]"):
        next(dataset(str(tmp_path), column="words"))
    with pytest.raises(ValueError, match="holds a int, no text"):
        list(dataset(str(tmp_path), column="number"))
    with pytest.raises(ValueError, match=r"cannot be read \("):
        dataset(str(tmp_path / "nowhere"))


# --- sequences


def test_sequences_joined_again_are_the_text():
    texts = ["abcdefg", "", "hijklmnop", "q"]
    found = sequences(texts, byte_tokenizer(), 4)
    assert bytes(found.astype(np.uint8).ravel()).decode() == "".join(texts)[: found.size]
    assert found.shape == (4, 4)
    assert found.dtype == np.int32


def test_a_separator_stands_after_each_text():
    found = sequences(["abc", "de", "f"], byte_tokenizer(), 3, separator=0)
    assert found.tolist() == [[97, 98, 99], [0, 100, 101], [0, 102, 0]]


def test_no_more_text_is_read_than_is_needed():
    read = []

    def texts():
        for text in ("abcd", "efgh", "ijkl"):
            read.append(text)
            yield text

    assert len(sequences(texts(), byte_tokenizer(), 4, 2)) == 2
    assert read == ["abcd", "efgh"]


def test_a_sample_of_each_text_is_spread_over_it_and_never_over_two():
    text = "".join(f"{number:04d}" for number in range(100))
    found = sequences([text, "short", text], byte_tokenizer(), 4, each=4)
    shown = [bytes(row.astype(np.uint8)).decode() for row in found]
    assert shown == ["0012", "0037", "0062", "0087", "shor", "0012", "0037", "0062", "0087"]


def test_too_little_text_is_refused():
    with pytest.raises(ValueError, match="gives 2 sequences of 3 tokens, 3 are asked for"):
        sequences(["abcdefgh"], byte_tokenizer(), 3, 3)
    with pytest.raises(ValueError, match="gives 0 sequences of 9 tokens"):
        sequences(["abcdefgh"], byte_tokenizer(), 9)
    for wrong in ({"length": 0}, {"length": 2, "count": 0}, {"length": 2, "each": 1.5}):
        with pytest.raises(ValueError, match="pass an integer of at least 1"):
            sequences(["abcdefgh"], byte_tokenizer(), **wrong)
