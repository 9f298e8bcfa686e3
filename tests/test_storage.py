"""What is on disk: whole or not at all, readable without this library, never unpickled, and never another study's."""

import ast
import json
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training import train_state
from laws import assert_same, quadratic_posterior

import slt_jax as slt
from slt_jax import storage
from slt_jax.spectroscopy import Cell, CheckpointError
from slt_jax.truths.truth import Truth

PACKAGE = Path(slt.__file__).parent
PARAMS = {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}}
#: What a training state holds beside the parameters, in the same shapes.
MOMENTS = jax.tree.map(lambda leaf: leaf - 7, PARAMS)


# --- traces, histories and readings


def test_a_trace_is_a_dataset_on_chain_and_draw():
    posterior = quadratic_posterior()
    data = jnp.asarray(np.random.default_rng(0).uniform(1.0, 3.0, 64).astype(np.float32))
    trace = slt.sample(
        jax.random.key(0), slt.samplers.sgld(1e-4), posterior, data, draws=7, chains=3, observe=lambda params: params
    )
    dataset = storage.trace_dataset(trace)
    assert dict(dataset.sizes) == {"chain": 3, "draw": 7, "observables/w_dim_0": 2, "observables/w_dim_1": 2} | {
        "observables/b_dim_0": 2,
        "leaf": 2,
    }
    for name in ("excess", "loss", "noise", "virial", "distance_squared", "acceptance"):
        assert dataset[name].dims == ("chain", "draw")
        np.testing.assert_array_equal(dataset[name].values, getattr(trace, name))
    assert dataset["virials"].dims == ("chain", "draw", "leaf")
    np.testing.assert_array_equal(dataset["virials"].values, trace.virials)
    np.testing.assert_array_equal(dataset["observables/w"].values, trace.observables["w"])
    assert "state" not in dataset


def reading(value, healthy=True):
    return {
        "value": np.float32(value),
        "std_error": np.float32(0.1),
        "healthy": np.bool_(healthy),
        "explanation": np.asarray("fine" if healthy else "UNHEALTHY: rhat"),
        "per_chain": np.full(2, value, np.float32),
        "trace": np.arange(6, dtype=np.float32).reshape(2, 3),
    }


CELLS = [
    Cell("llc", 20, "full", "all", reading(3.0), None),
    Cell("llc", 20, "bias", "all", reading(1.5, healthy=False), None),
    Cell("llc", 5, "full", "all", None, "checkpoint 5: unreadable or truncated (cut)."),
    Cell("llc", 5, "bias", "all", reading(np.nan, healthy=False), None),
    Cell("other", 5, "full", "all", {"value": np.float32(9.0)}, None),
]
EXACT = {20: Truth(Fraction(7, 2), 1, "by hand")}


def test_readings_stand_at_their_step_restriction_and_subloss():
    tree = storage.readings_tree(CELLS, EXACT)
    llc = tree["/llc"]
    assert llc["value"].dims == ("step", "restriction", "subloss")
    assert llc["step"].values.tolist() == [5, 20]
    assert llc["value"].sel(step=20, restriction="bias", subloss="all") == 1.5
    assert llc["per_chain"].dims == ("step", "restriction", "subloss", "chain")
    assert llc["trace"].dims == ("step", "restriction", "subloss", "chain", "trace_point")
    np.testing.assert_array_equal(llc["trace"].sel(step=20, restriction="full", subloss="all"), reading(0)["trace"])
    assert tree["/other"]["value"].item() == 9.0
    assert llc["exact"].sel(step=20, restriction="full", subloss="all") == 3.5
    assert np.isnan(llc["exact"].sel(step=20, restriction="bias")).all()


def test_a_missing_reading_and_a_diverged_one_are_told_apart_and_both_explained():
    llc = storage.readings_tree(CELLS, EXACT)["/llc"]
    missing, diverged = (llc.sel(step=5, restriction=name, subloss="all") for name in ("full", "bias"))
    assert np.isnan(missing["value"])
    assert np.isnan(diverged["value"])
    assert not missing["measured"]
    assert diverged["measured"]
    assert not missing["healthy"]
    assert not diverged["healthy"]
    assert json.loads(llc.attrs["errors"]) == {"5/full/all": "checkpoint 5: unreadable or truncated (cut)."}
    assert json.loads(llc.attrs["explanations"])["20/bias/all"] == "UNHEALTHY: rhat"


def test_readings_open_in_a_process_that_has_never_heard_of_this_library(tmp_path):
    storage.write_readings(tmp_path, CELLS, EXACT)
    program = (
        "import sys, xarray\n"
        f"tree = xarray.open_datatree({str(tmp_path / 'readings.zarr')!r}, engine='zarr')\n"
        "value = tree['/llc/value'].sel(step=20, restriction='full', subloss='all')\n"
        "print(sorted(tree.children), float(value), tree['/llc'].attrs['errors'])\n"
        "assert not any(name.split('.')[0] in ('slt_jax', 'jax') for name in sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("['llc', 'other'] 3.0 ")


def test_readings_are_replaced_whole_and_nothing_is_left_beside_them(tmp_path):
    assert storage.read_readings(tmp_path) is None
    storage.write_readings(tmp_path, CELLS, EXACT)
    storage.write_readings(tmp_path, CELLS[:1], {})
    tree = storage.read_readings(tmp_path)
    assert tree["/llc"]["step"].values.tolist() == [20]
    assert "/other" not in tree.groups
    assert [entry.name for entry in tmp_path.iterdir()] == ["readings.zarr"]


# --- finished readings


def damage(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not a reading")
    elif how == "another byte":
        middle = content.index(b"value.npy") + 100
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    else:
        content = np.array([{}], object) if how == "pickle" else np.zeros(3)
        np.save(path.with_suffix(".npy"), content, allow_pickle=True)
        path.with_suffix(".npy").rename(path)


MARK = "a1" * 32


def test_finished_readings_are_a_mapping_that_survives_the_process(tmp_path):
    finished = storage.FinishedReadings(tmp_path)
    assert MARK not in finished
    assert finished.get(MARK) is None
    finished[MARK] = reading(2.0)
    again = storage.FinishedReadings(tmp_path)
    assert MARK in again
    assert len(again) == 1
    assert str(again[MARK]["explanation"]) == "fine"
    for name, value in reading(2.0).items():
        np.testing.assert_array_equal(again[MARK][name], value)
        assert again[MARK][name].dtype == value.dtype
    del again[MARK]
    assert MARK not in finished


@pytest.mark.parametrize("how", ["cut", "empty", "text", "another byte", "pickle", "one array"])
def test_a_finished_reading_that_was_damaged_counts_as_absent(tmp_path, how):
    finished = storage.FinishedReadings(tmp_path)
    finished[MARK] = reading(2.0)
    (path,) = (tmp_path / "cells").iterdir()
    damage(path, how)
    assert MARK not in finished
    assert finished.get(MARK) is None
    with pytest.raises(KeyError):
        finished[MARK]
    finished[MARK] = reading(4.0)
    assert finished[MARK]["value"] == 4.0


# --- whose folder it is

IDENTITY = {"study": "digits", "seed": 0, "settings": {"llc": {"draws": 10, "nbeta": None}}}


def test_a_folder_is_claimed_once_and_known_again(tmp_path):
    storage.claim(tmp_path / "deep" / "out", IDENTITY)
    storage.claim(tmp_path / "deep" / "out", IDENTITY)
    assert storage.read_study(tmp_path / "deep" / "out") == {"identity": IDENTITY}
    assert [entry.name for entry in (tmp_path / "deep" / "out").iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "belongs to another study .seed is 0 there, 1 here"),
        ({"study": "semantics"}, "study is 'digits' there, 'semantics' here"),
        ({"settings": {"llc": {"draws": 11, "nbeta": None}}}, "settings is .*'draws': 10.* there, .*'draws': 11"),
        ({"more": 1}, "more is None there, 1 here"),
    ],
)
def test_another_study_is_refused_by_the_first_difference_and_touches_nothing(tmp_path, changed, message):
    storage.claim(tmp_path, IDENTITY)
    with pytest.raises(storage.FolderError, match=f"--out: .*{message}"):
        storage.claim(tmp_path, {**IDENTITY, **changed})
    assert storage.read_study(tmp_path) == {"identity": IDENTITY}


def test_a_folder_with_somebody_elses_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(storage.FolderError, match="is not empty and holds no study"):
        storage.claim(tmp_path, IDENTITY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(storage.FolderError, match=r"--out: cannot write to .*; choose another folder"):
        storage.claim(tmp_path / place, IDENTITY)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[1]", "holds a list, not what a study writes")]
)
def test_a_study_file_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "study.json").write_text(text)
    for function in (storage.read_study, lambda folder: storage.claim(folder, IDENTITY)):
        with pytest.raises(storage.FolderError, match=message):
            function(tmp_path)
    with pytest.raises(storage.FolderError, match=r"holds no study\.json"):
        storage.read_study(tmp_path / "nowhere")


# --- checkpoints


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """One checkpoint in each layout that a user may have, by name."""
    root = tmp_path_factory.mktemp("layouts")
    state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=optax.adam(1e-3))
    state = state.replace(opt_state=jax.tree.map(lambda leaf: leaf - 7, state.opt_state))
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    model.kernel[...], model.bias[...] = PARAMS["dense"]["kernel"], PARAMS["dense"]["bias"]
    trees = {
        "parameters alone": PARAMS,
        "a dict with the state of Adam": {"opt_state": optax.adam(1e-3).init(PARAMS), "params": PARAMS, "step": 3},
        "a TrainState": state,
        "moments that sort before the parameters": {"m": MOMENTS, "v": MOMENTS, "params": PARAMS},
        "an average beside the parameters": {"ema": {"params": {"x": MOMENTS}}, "params": PARAMS},
        "linen variables": {"params": PARAMS, "batch_stats": {"mean": np.zeros(3)}},
        "deep in a state": {"train": {"model": PARAMS, "average": MOMENTS}},
        "two candidates": {"first": PARAMS, "second": MOMENTS},
        "another shape": {"params": {"dense": {"kernel": np.zeros((2, 4)), "bias": np.zeros(3)}}},
        "another name": {"params": {"layer": PARAMS["dense"]}},
        "a missing leaf": {"params": {"dense": {"bias": np.ones(3), "scale": np.ones(3)}}},
        "nnx": {"dense": nnx.state(model)},
        "nnx as dicts": {"model": {"dense": nnx.to_pure_dict(nnx.state(model))}},
    }
    paths = {name: root / str(index) / "1" for index, name in enumerate(trees)}
    with ocp.StandardCheckpointer() as checkpointer:
        for name, tree in trees.items():
            checkpointer.save(paths[name], tree)
        checkpointer.wait_until_finished()
    for name, args in {
        "CheckpointManager": ocp.args.StandardSave(PARAMS),
        "CheckpointManager with two items": ocp.args.Composite(
            average=ocp.args.StandardSave(MOMENTS), params=ocp.args.StandardSave(PARAMS)
        ),
        "CheckpointManager with metrics": ocp.args.Composite(
            state=ocp.args.StandardSave({"params": PARAMS}), metrics=ocp.args.JsonSave({"loss": 1.0})
        ),
    }.items():
        with ocp.CheckpointManager(root / name) as manager:
            manager.save(12, args=args)
            manager.wait_until_finished()
        paths[name] = root / name / "12"
    for zarr3 in (False, True):
        paths[f"without OCDBT, Zarr 3 {zarr3}"] = root / f"plain {zarr3}" / "1"
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=zarr3)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(paths[f"without OCDBT, Zarr 3 {zarr3}"], PARAMS)
    storage.save_checkpoints(root / "ours", {1: PARAMS, 30: MOMENTS})
    paths["ours"] = root / "ours" / "1"
    return paths


READABLE = [
    "parameters alone",
    "a dict with the state of Adam",
    "a TrainState",
    "moments that sort before the parameters",
    "an average beside the parameters",
    "linen variables",
    "deep in a state",
    "nnx",
    "nnx as dicts",
    "CheckpointManager",
    "CheckpointManager with two items",
    "CheckpointManager with metrics",
    "without OCDBT, Zarr 3 False",
    "without OCDBT, Zarr 3 True",
    "ours",
]


@pytest.mark.parametrize("layout", READABLE)
def test_the_parameters_are_found_in(layouts, layout):
    assert_same(storage.load_checkpoint(layouts[layout], PARAMS), PARAMS)
    other = {"dense": {**PARAMS["dense"], "extra": np.ones(3, np.float32)}}
    with pytest.raises(CheckpointError, match="has another tree than params; it has no leaf 'dense/extra'"):
        storage.load_checkpoint(layouts[layout], other)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("another shape", r"leaf 'dense/kernel' has shape \(2, 4\), expected \(2, 3\)"),
        ("another name", r"it has no leaf 'dense/bias' \(its leaves: params/layer/bias"),
        ("a missing leaf", "it has no leaf 'dense/kernel'"),
        ("two candidates", "holds several trees like params, under 'first', 'second'; save the parameters under"),
    ],
)
def test_another_tree_is_named(layouts, layout, message):
    with pytest.raises(CheckpointError, match=f"checkpoint 1: .*{message}"):
        storage.load_checkpoint(layouts[layout], PARAMS)


def test_parameters_may_be_one_array(layouts):
    loaded = storage.load_checkpoint(layouts["a missing leaf"], {"scale": np.zeros(3)})
    np.testing.assert_array_equal(loaded["scale"], np.ones(3))
    with pytest.raises(CheckpointError, match="holds several trees like params"):
        storage.load_checkpoint(layouts["a missing leaf"], np.zeros(3))


FILES = ["_METADATA", "manifest.ocdbt", "d"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["deleted", "cut", "empty"])
def test_a_truncated_checkpoint_is_unreadable_never_other_numbers(layouts, tmp_path, file, how):
    path = tmp_path / "1"
    shutil.copytree(layouts["parameters alone"], path)
    target = path / file
    target = next(target.iterdir()) if target.is_dir() else target
    content = target.read_bytes()
    target.unlink()
    if how != "deleted":
        target.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    with pytest.raises(CheckpointError, match="checkpoint 1: unreadable or truncated"):
        storage.load_checkpoint(path, PARAMS)


# Orbax reads all arrays at once and leaves the others on their way when one fails; they come home to a closed loop
@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("layout", ["without OCDBT, Zarr 3 False", "without OCDBT, Zarr 3 True"])
def test_a_lost_piece_of_an_array_is_never_filled_with_zeros(layouts, tmp_path, layout):
    path = tmp_path / "1"
    shutil.copytree(layouts[layout], path)
    assert_same(storage.load_checkpoint(path, PARAMS), PARAMS)
    pieces = [file for file in path.rglob("*") if file.is_file() and file.name in ("0", "0.0")]
    assert len(pieces) == 2
    pieces[0].unlink()
    with pytest.raises(CheckpointError, match="checkpoint 1: unreadable"):
        storage.load_checkpoint(path, PARAMS)
    time.sleep(0.2)


@pytest.mark.parametrize("kind", ["an empty folder", "no folder", "a folder with notes"])
def test_a_checkpoint_that_is_none_is_unreadable(tmp_path, kind):
    path = tmp_path / "7"
    if kind != "no folder":
        path.mkdir()
    if kind == "a folder with notes":
        (path / "notes.txt").touch()
        (path / "default").mkdir()
    with pytest.raises(CheckpointError, match="checkpoint 7: unreadable or truncated"):
        storage.load_checkpoint(path, PARAMS)


def test_folders_named_by_their_step_are_checkpoints_in_the_order_of_the_steps(tmp_path):
    for name in ("step_300", "20", "checkpoint-1000", "ckpt4"):
        (tmp_path / name).mkdir()
    for name in ("logs", "500.orbax-checkpoint-tmp-7", "v2_final"):
        (tmp_path / name).mkdir()
    (tmp_path / "77").touch()
    assert list(storage.list_checkpoints(tmp_path)) == [4, 20, 300, 1000]


def test_two_folders_of_one_step_are_refused(tmp_path):
    for name in ("step_300", "300"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="'300' and 'step_300' are both step 300"):
        storage.list_checkpoints(tmp_path)


def test_a_folder_without_checkpoints_is_refused(layouts, tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint; expected folders named by their step"):
        storage.list_checkpoints(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        storage.list_checkpoints(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not a folder"):
        storage.list_checkpoints(tmp_path / "file")
    for layout in ("parameters alone", "CheckpointManager"):
        with pytest.raises(ValueError, match="is itself one checkpoint; pass the folder above it"):
            storage.list_checkpoints(layouts[layout])
        assert list(storage.list_checkpoints(layouts[layout].parent)) == [int(layouts[layout].name)]


def test_saved_steps_are_kept_and_loaded_only_in_their_turn(tmp_path):
    storage.save_checkpoints(tmp_path, {3: PARAMS})
    storage.save_checkpoints(tmp_path, {3: MOMENTS, 10: MOMENTS})
    first, second = storage.checkpoints_in(tmp_path, PARAMS)
    assert (first.step, second.step) == (3, 10)
    assert_same(first.load(), PARAMS)
    shutil.rmtree(tmp_path / "10")
    with pytest.raises(CheckpointError, match="checkpoint 10"):
        second.load()


# --- nothing is ever unpickled

UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickling(source):
    """Where a source could unpickle: imports of such libraries, and numpy told or left to allow it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [name for name in names if name.split(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call):
            flags = [word.value for word in node.keywords if word.arg == "allow_pickle"]
            if any(not (isinstance(flag, ast.Constant) and flag.value is False) for flag in flags):
                found.append(ast.unparse(node))
            if ast.unparse(node.func) in ("np.load", "numpy.load", "jnp.load") and not flags:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_in_the_package_unpickles(file):
    assert unpickling(file.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "f(allow_pickle=x)",
    ],
)
def test_what_would_unpickle_is_found(source):
    assert len(unpickling(source)) == 1
    assert unpickling("np.load(path, allow_pickle=False)") == []
