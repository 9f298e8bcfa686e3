"""Published models are read from folders and from the cache of the Hub; what cannot be read is named with a remedy."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from published import CONFIG, random_tensors, write_model

from slt_jax import storage
from slt_jax.spectroscopy import CheckpointError
from slt_jax.storage.hub import parse_reference, pretrained, steps_of

SMALL = {**CONFIG, "num_hidden_layers": 1}

pytest.importorskip("safetensors")


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "model", SMALL)


def save(folder, tensors, name="model.safetensors"):
    from safetensors.numpy import save_file

    save_file(tensors, folder / name)


# --- weights


def test_what_was_written_is_read(folder):
    network, params = storage.load_pretrained(folder)
    tensors = random_tensors(SMALL)
    np.testing.assert_array_equal(params["embed"]["embedding"], tensors["gpt_neox.embed_in.weight"])
    np.testing.assert_array_equal(params["unembed"]["kernel"], tensors["embed_out.weight"].T)
    assert network.rotary == 4
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_another_precision_become_single_unless_asked(folder, stored):
    tensors = {name: array.astype(stored) for name, array in random_tensors(SMALL).items()}
    save(folder, tensors)
    single, kept = (storage.load_pretrained(folder, dtype)[1] for dtype in (np.float32, None))
    expected = tensors["gpt_neox.final_layer_norm.weight"]
    assert single["norm"]["scale"].dtype == np.float32
    np.testing.assert_array_equal(single["norm"]["scale"], expected.astype(np.float32))
    assert kept["norm"]["scale"].dtype == stored
    np.testing.assert_array_equal(kept["norm"]["scale"], expected)


def shard(folder, tensors):
    """The same weights in two files, with an index."""
    names = sorted(tensors)
    where = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    for part in sorted(set(where.values())):
        save(folder, {name: tensors[name] for name in names if where[name] == part}, part)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return where


def test_shards_are_one_model(folder):
    whole = storage.load_pretrained(folder)[1]
    shard(folder, random_tensors(SMALL))
    jax.tree.map(np.testing.assert_array_equal, storage.load_pretrained(folder)[1], whole)


# --- what cannot be read


def without(name):
    return lambda folder: (folder / name).unlink()


def config(**changes):
    return lambda folder: (folder / "config.json").write_text(json.dumps({**SMALL, **changes}))


def tensors(**changes):
    return lambda folder: save(
        folder, {**random_tensors(SMALL), **{k.replace("_w", ".w"): v for k, v in changes.items()}}
    )


def only_pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lost_shard(folder):
    shard(folder, random_tensors(SMALL))
    (folder / "part-1.safetensors").unlink()


def shard_elsewhere(folder):
    where = shard(folder, random_tensors(SMALL))
    where["embed_out.weight"] = "../part-1.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def index_of_nothing(folder):
    shard(folder, random_tensors(SMALL))
    (folder / "model.safetensors.index.json").write_text("{}")


BAD = {
    "no config": (without("config.json"), r"model: has no config\.json; there are \['model\.safetensors'\]"),
    "a config that is none": (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
    "a list as config": (lambda folder: (folder / "config.json").write_text("[1]"), "holds a list, not a JSON object"),
    "gpt2": (config(model_type="gpt2"), r"config\.json: model_type is 'gpt2'; only 'gpt_neox'"),
    "llama": (config(model_type="llama"), "model_type is 'llama'"),
    "pickled weights only": (only_pickled, r"holds pytorch_model\.bin and no .* runs code .* save_pretrained"),
    "no weights": (without("model.safetensors"), r"holds neither model\.safetensors nor"),
    "weights cut short": (cut_short, r"model\.safetensors: unreadable or cut short"),
    "another config": (config(num_hidden_layers=2), "12 tensors are missing, as 'gpt_neox"),
    "another vocabulary": (config(vocab_size=300), r"has shape \(256, 16\); config\.json says \(300, 16\)"),
    "a tensor too many": (tensors(lm_head_weight=np.zeros(3)), r"1 are left over, as 'lm_head\.weight'"),
    "whole numbers": (tensors(embed_out_weight=np.zeros((256, 16), np.int8)), r"dtype int8; quantised"),
    "a lost shard": (lost_shard, r"names the shard 'part-1\.safetensors', which"),
    "a shard in another folder": (shard_elsewhere, r"names the shard '\.\./part-1\.safetensors'"),
    "an index of nothing": (index_of_nothing, "has no 'weight_map'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_cannot_be_read_is_refused_by_name(folder, case):
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(ValueError, match=message) as refused:
        storage.load_pretrained(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_the_library_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ValueError, match=r"pip install 'slt_jax\[hub\]'"):
        storage.load_pretrained(folder)


# --- revisions


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps of one training run, and another network beside them."""
    above = tmp_path_factory.mktemp("run")
    for seed, step in enumerate((0, 1000, 2000)):
        write_model(above / f"step{step}", SMALL, seed)
    write_model(above / "wider", {**SMALL, "intermediate_size": 48})
    return above


def test_each_step_is_read_when_its_turn_comes(run, monkeypatch):
    read = []
    monkeypatch.setattr(
        storage.hub, "read_params", lambda folder, network: read.append(folder.name) or {"from": folder.name}
    )
    model = pretrained(f"hf:{run}@step2000,step0")
    assert read == []
    assert [point.step for point in model.checkpoints] == [0, 2000]
    assert [point.load()["from"] for point in model.checkpoints] == ["step0", "step2000"]
    assert read == ["step0", "step2000"]
    assert model.name == f"hf:{run}@step2000,step0"


def test_the_weights_of_a_step_are_those_of_its_folder(run):
    model = pretrained(f"hf:{run}@step0,step1000")
    for seed, point in enumerate(model.checkpoints):
        expected = random_tensors(SMALL, seed)["gpt_neox.embed_in.weight"]
        np.testing.assert_array_equal(point.load()["embed"]["embedding"], expected)


def test_one_folder_is_one_checkpoint(run):
    (point,) = pretrained(f"hf:{run / 'step1000'}").checkpoints
    assert point.step == 0


def test_a_step_that_cannot_be_read_fails_alone(run, tmp_path):
    for step in (0, 1000):
        write_model(tmp_path / f"step{step}", SMALL)
    cut_short(tmp_path / "step1000")
    good, bad = pretrained(f"hf:{tmp_path}@step0,step1000").checkpoints
    assert good.load()
    with pytest.raises(CheckpointError, match=r"step1000/model\.safetensors: unreadable or cut short"):
        bad.load()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf:", "write hf:FOLDER"),
        ("hf:{run}@", "write hf:FOLDER"),
        ("hf:{run}@step0,,step1000", "write hf:FOLDER"),
        ("hf:{run}@step0,step0", "names a revision twice"),
        ("hf:{run}@step0,step5", r"has no folder 'step5' for this revision; there are \['step0', 'step1000'"),
        ("hf:{run}", "has no config.json; for its revisions write @step0,step1000,step2000,wider after it"),
        ("hf:{run}@step0,wider", "wider is of another architecture than step0"),
        ("hf:{run}/nowhere", "nowhere: no such folder"),
        ("hf:~/no/such/folder", "no such folder"),
        ("hf:too/many/parts", "no such folder"),
    ],
)
def test_a_reference_to_nothing_is_refused(run, reference, message):
    with pytest.raises(ValueError, match=message):
        pretrained(reference.format(run=run))


def test_steps_are_numbers_in_names_or_follow_one_another():
    assert steps_of(["step512", "step0", "checkpoint-7"]) == [512, 0, 7]
    assert steps_of(["early", "late"]) == [0, 1]
    assert steps_of(["step1000", "main"]) == [1000, 1001]
    assert steps_of([]) == [0]
    with pytest.raises(ValueError, match="'step5' and '5' are both step 5"):
        steps_of(["step5", "5"])


def test_a_folder_whose_name_holds_an_at_sign_is_a_folder(tmp_path):
    write_model(tmp_path / "run@home", SMALL)
    assert parse_reference(f"hf:{tmp_path}/run@home").revisions == ()


# --- the Hub


def hub_cache(cache, name, revisions):
    """A repository as the Hub's client keeps it once it is fetched."""
    repository = cache / f"models--{name.replace('/', '--')}"
    for seed, revision in enumerate(revisions):
        commit = f"{seed:040x}"
        write_model(repository / "snapshots" / commit, SMALL, seed)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The real client with a cache of our own, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_revisions_come_from_the_cache_of_the_hub(offline):
    hub_cache(offline, "somebody/small", ["step0", "step1000"])
    model = pretrained("hf:somebody/small@step0,step1000")
    for seed, point in enumerate(model.checkpoints):
        expected = random_tensors(SMALL, seed)["gpt_neox.embed_in.weight"]
        np.testing.assert_array_equal(point.load()["embed"]["embedding"], expected)
    assert [point.step for point in model.checkpoints] == [0, 1000]
    assert model.name == "hf:somebody/small@step0,step1000"


def test_a_repository_or_revision_that_cannot_be_fetched_is_refused(offline):
    hub_cache(offline, "somebody/small", ["main"])
    assert [point.step for point in pretrained("hf:somebody/small").checkpoints] == [0]
    for reference in ("hf:somebody/other", "hf:somebody/small@step5"):
        with pytest.raises(ValueError, match=r"cannot be fetched from the Hub, and is no folder here \(") as refused:
            pretrained(reference)
        assert "\n" not in str(refused.value)


def test_only_descriptions_are_fetched_before_a_step_has_its_turn(monkeypatch, run):
    library = pytest.importorskip("huggingface_hub")
    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision, tuple(allow_patterns)))
        return str(run / revision)

    monkeypatch.setattr(library, "snapshot_download", download)
    model = pretrained("hf:somebody/small@step0,step1000")
    assert [(name, revision) for name, revision, _ in asked] == [
        ("somebody/small", "step0"),
        ("somebody/small", "step1000"),
    ]
    assert not any("safetensors" in pattern for _, _, patterns in asked for pattern in patterns)
    model.checkpoints[1].load()
    assert asked[2][1] == "step1000"
    assert "model.safetensors" in asked[2][2]
    assert not any(pattern.endswith(".bin") for _, _, patterns in asked for pattern in patterns)


def test_without_the_client_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"somebody/small: no such folder here; .*pip install 'slt_jax\[hub\]'"):
        pretrained("hf:somebody/small@step0")


def test_nothing_optional_is_needed_to_import():
    optional = ("torch", "transformers", "safetensors", "huggingface_hub", "tokenizers", "datasets")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({optional!r})); "
        "import slt_jax.pretrained_scan, slt_jax.text, slt_jax.storage, slt_jax.models.neox_layout; print('imported')"
    )
    root = Path(__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=root)
    assert shown.stdout == "imported\n"
