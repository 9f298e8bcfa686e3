"""A scan of a pretrained language model from the command line: its own loss on text, at revisions, in every head."""

import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import compilations
from published import CONFIG, write_model

from slt_jax import storage, text
from slt_jax.cli import main
from slt_jax.fanout import ScanRequest, run_request
from slt_jax.models.neox import next_token_loss
from slt_jax.pretrained_scan import pretrained_scan

pytest.importorskip("safetensors")

SMALL = {**CONFIG, "num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "rotary_pct": 1.0}
STEPS = (0, 1000, 2000)
WORDS = [f"text {number}: the quick brown fox jumps over the lazy dog, {number} times.\n" * 3 for number in range(4)]
TEXT = ["--tokenizer", "bytes", "--sequences", "8", "--context", "12"]
QUICK = ["--draws", "4", "--burnin", "4", "--chains", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with three steps of a model over bytes, and text beside them."""
    above = tmp_path_factory.mktemp("work")
    for seed, step in enumerate(STEPS):
        write_model(above / "run" / f"step{step}", SMALL, seed)
    write_model(above / "gpt2", SMALL)
    (above / "gpt2" / "config.json").write_text(json.dumps({**SMALL, "model_type": "gpt2"}))
    write_model(above / "pickled", SMALL)
    (above / "pickled" / "model.safetensors").rename(above / "pickled" / "pytorch_model.bin")
    (above / "text").mkdir()
    for number, words in enumerate(WORDS):
        (above / "text" / f"{number}.txt").write_text(words)
    return above


def command(run, out, *more, model="run@step0,step1000,step2000", settings=(*TEXT, *QUICK)):
    return ["scan", f"hf:{run}/{model}", "--out", str(out), "--text", str(run / "text"), *settings, *more]


@pytest.fixture(scope="module")
def scanned(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "heads"
    return out, main(command(run, out, "--restrictions", "heads"))


def test_every_head_is_measured_at_every_step(scanned):
    out, code = scanned
    assert code in (0, 1)  # a few draws are not healthy
    node = storage.read_readings(out)["/llc"]
    assert node["step"].values.tolist() == list(STEPS)
    assert node["restriction"].values.tolist() == ["head 0.0", "head 0.1"]
    assert node["measured"].values.all()
    assert np.isfinite(node["value"].values).all()
    assert "Readings of run@step0,step1000,step2000" in (out / "report.html").read_text()


def test_the_loss_is_that_of_each_next_token_of_the_text(run, scanned):
    """Against the same by hand: bytes of the files in their order, the published weights, the network."""
    tokens = np.frombuffer("".join(WORDS).encode(), np.uint8)[: 8 * 12].reshape(8, 12).astype(np.int32)
    history = storage.read_history(scanned[0])
    for step, found in zip(STEPS, history.losses["all"], strict=True):
        network, params = storage.load_pretrained(run / "run" / f"step{step}")
        expected = float(jnp.mean(next_token_loss(network)(params, jnp.asarray(tokens))))
        assert found == pytest.approx(expected, rel=1e-5)
    assert np.ptp(history.losses["all"]) > 0.01


def test_the_same_command_again_computes_nothing(run, scanned):
    out, code = scanned
    cells = {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("[0-9a-f]*.npz")}
    assert len(cells) == 6
    assert main(command(run, out, "--restrictions", "heads")) == code
    assert {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("[0-9a-f]*.npz")} == cells


def test_workers_told_of_it_by_relative_names_find_these_readings_their_own(run, scanned, tmp_path):
    out = shutil.copytree(scanned[0], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (out / "cells").glob("[0-9a-f]*.npz")}
    request = ScanRequest(
        "hf:run@step0,step1000,step2000",
        str(out),
        probes={"llc": {"nbeta": None, "gamma": None, "chains": 2, "draws": 4, "burnin": 4, "batch_size": None}},
        restrictions=["heads"],
        language={"text": "text", "tokenizer": "bytes", "sequences": 8, "context": 12},
        directory=str(run),
    )
    # one of them is missing, and is taken by a worker
    gone = sorted(before)[0]
    (out / "cells" / gone).unlink()
    times = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    with ThreadPoolExecutor(2) as executor:
        assert run_request(request, executor).readings == 6
    after = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert {name: after[name] for name in times} == times
    assert after.keys() - times.keys() == {gone}


def complaint(capsys):
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("slt-jax: ")
    return lines[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--text", "{run}/text/3.txt"], "belongs to another study (data is"),
        (["--context", "11"], "belongs to another study (data is"),
        (["--seed", "3"], "belongs to another study (seed is"),
    ],
)
def test_other_text_or_seed_in_the_same_folder_is_refused(run, scanned, changed, message, capsys):
    changed = [part.format(run=run) for part in changed]
    assert main(command(run, scanned[0], "--restrictions", "heads", *changed)) == 2
    assert message in complaint(capsys)


BAD = {
    "no folder": ({"model": "nowhere"}, [], "nowhere: no such folder"),
    "no revision": ({"model": "run"}, [], "for its revisions write @step0,step1000,step2000"),
    "an unknown revision": ({"model": "run@step0,step7"}, [], "has no folder 'step7'"),
    "a trailing comma": ({"model": "run@step0,"}, [], "write hf:FOLDER"),
    "gpt2": ({"model": "gpt2"}, [], "model_type is 'gpt2'"),
    "pickled weights": ({"model": "pickled"}, [], r"holds pytorch_model\.bin and no"),
    "a problem besides": ({}, ["--problem", "mine:problem"], "--problem: got 'mine:problem'; .* leave it out"),
    "no tokenizer": ({"settings": QUICK}, [], r"has no tokenizer\.json; pass --tokenizer FILE, or --tokenizer bytes"),
    "a tokenizer that is not there": ({}, ["--tokenizer", "none.json"], r"tokenizer: none\.json: is no file"),
    "a context that is too long": ({}, ["--context", "33"], "--context: got 33; this model takes .* 2 to 32 tokens"),
    "a context without a next token": ({}, ["--context", "1"], "--context: got 1"),
    "no sequences": ({}, ["--sequences", "0"], "--sequences: got 0"),
    "too little text": ({}, ["--sequences", "1000"], "gives 62 sequences of 12 tokens, 1000 are asked for"),
    "text that is none": (
        {},
        ["--text", __file__.rpartition("/")[0] + "/data/neox/pythia/model.safetensors"],
        "is not UTF-8 text",
    ),
    "text that is not there": ({}, ["--text", "/nowhere"], "text: /nowhere: no such file"),
    "an unknown restriction": ({}, ["--restrictions", "brain"], "restrictions: got 'brain'"),
    "a batch larger than the data": ({}, ["--batch-size", "9"], "batch_size: got 9 with 8 examples"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(run, tmp_path, capsys, case):
    changed, more, message = BAD[case]
    with compilations() as seen:
        assert main(command(run, tmp_path / "out", *more, **changed)) == 2
    said = complaint(capsys)
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()
    assert seen == []


def test_without_what_reads_weights_the_extra_is_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(command(run, tmp_path / "out")) == 2
    assert "pip install 'slt_jax[hub]'" in complaint(capsys)


def test_options_of_language_models_are_refused_for_other_checkpoints(run, tmp_path, capsys):
    assert main(["scan", str(run), "--problem", "a:b", "--out", str(tmp_path / "out"), "--context", "5"]) == 2
    assert "--context: is for hf:MODEL" in complaint(capsys)
    assert main(["scan", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "--problem: got none" in complaint(capsys)


def test_the_tokenizer_of_the_model_is_taken_from_beside_it(run, tmp_path):
    """That of the folder above its revisions too; the model's own token ends each text."""
    pytest.importorskip("tokenizers")
    write_model(tmp_path / "run" / "step0", {**SMALL, "vocab_size": 300, "eos_token_id": 299})
    pairs = text.train_tokenizer(WORDS, 290)
    pairs.encode.args[0].save(str(tmp_path / "run" / "tokenizer.json"))
    found = pretrained_scan(f"hf:{tmp_path}/run@step0", text=str(run / "text"), sequences=6, context=20)
    expected = np.concatenate([[*pairs.encode(words), 299] for words in WORDS])[:120].reshape(6, 20)
    assert found.subject.problem.data.tolist() == expected.tolist()
    assert 299 in expected
    # a tokenizer of more tokens than the model has embeddings for is another model's
    write_model(tmp_path / "run" / "step1", SMALL)
    with pytest.raises(ValueError, match=r"--tokenizer: has \d+ tokens, the model 256"):
        pretrained_scan(f"hf:{tmp_path}/run@step1")


def test_without_a_text_it_is_a_sample_of_the_standard_library(run):
    found = pretrained_scan(f"hf:{run}/run@step0,step1000", tokenizer="bytes", sequences=40)
    tokens = found.subject.problem.data
    assert tokens.shape == (40, 32)
    sources = list(text.standard_library())
    within = [next(n for n, source in enumerate(sources) if bytes(row.tolist()) in source.encode()) for row in tokens]
    assert len(set(within)) > 35
    assert [point.step for point in found.checkpoints] == [0, 1000]
    assert all(leaf.strides == (0,) * leaf.ndim for leaf in jax.tree.leaves(found.subject.problem.params))
