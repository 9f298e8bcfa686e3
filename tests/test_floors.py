"""The house keeps its floors: imports only point down, and heavy libraries stay in the rooms that use them."""

import ast
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import jax
import pytest

import slt_jax

PACKAGE = Path(__file__).parents[1] / "slt_jax"

#: A unit (a file or a folder directly under the package) imports from strictly lower floors and from itself.
FLOORS = {
    "types": 0,
    "compiled": 0,
    "ticking": 1,
    "problem": 1,
    "generator": 1,
    "tree": 2,
    "noise": 3,
    "loss": 3,
    "restriction": 4,
    "loss_wrappers": 4,
    "diagnostics": 3,
    "sharding": 1,
    "posterior": 5,
    "reference": 5,
    "samplers": 6,
    "curvature": 6,
    "polish": 6,
    "truths": 6,
    "programs": 6,
    "models": 6,
    "adapters": 6,
    "flax": 6,
    "text": 6,
    "sampling": 7,
    "estimators": 8,
    "substructure": 8,
    "ladder": 9,  # over estimators, whose verdicts it reads on every rung
    "response": 9,  # over estimators: covariances along their chains, with their verdict; sees no ladder
    "streaming": 9,  # over estimators: their step, their verdict; chains whose batches come from outside
    "synthesis": 10,  # over samplers and truths: programs found, sorted and weighed; sees no spectroscopy
    "spectroscopy": 10,
    "studies": 11,  # over spectroscopy, which knows of no study, and synthesis
    "__init__": 11,
    "storage": 11,
    "report": 12,
    "development": 11,  # what study.json says of what was learned when
    "account": 12,  # what study.json says
    "plots": 11,
    "measuring": 13,  # the end of every study and scan
    "workflow": 14,  # from a study to an output folder: what the command line shows and starts
    "progress": 15,
    "watching": 15,  # a scan of a training that still runs
    "user_code": 15,
    "dry_run": 15,  # what a scan would take
    "pretrained_scan": 15,  # a scan of a published model, which brings its own loss
    "cli_compare": 15,
    "cli_truth": 15,
    "fanout": 16,  # a scan in plain values, whose checkpoints are measured in other processes
    "hosts": 16,  # one scan, all processes at once
    "executors": 17,  # processes of this machine, a Dask cluster
    "cli_workers": 18,
    "cli_hosts": 18,
    "cli": 19,
    "__main__": 20,
}

#: Where a heavy library may be imported at all (paths inside the package), and whether only inside functions.
ANYWHERE = ("*",)
HEAVY = {
    "flax": (("flax.py", "models/*"), False),
    "xarray": (("storage*",), False),
    "zarr": (("storage*",), False),
    "orbax": (("storage*",), False),
    "matplotlib": (("plots*",), False),
    "rich": (("cli*", "progress*"), False),
    "sklearn": (("studies/*", "response/agreement.py"), False),
    "umap": (("response/embedding.py",), True),
    "ruptures": (("spectroscopy/change_points.py",), True),
    "scipy": (ANYWHERE, True),
    "blackjax": (("adapters/*", "samplers/*"), True),
    "numpyro": (("adapters/*", "samplers/*"), True),
    "matfree": (("adapters/*", "curvature/*"), True),
    "pymbar": (("adapters/*",), True),
    "safetensors": (("storage/pretrained*",), True),
    "huggingface_hub": (("storage/hub*",), True),
    "tokenizers": (("text/tokenizers*",), True),
    "distributed": (("executors.py",), True),
    "datasets": (("text/corpus*",), True),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def unit_of(module: str) -> str:
    """``slt_jax.samplers.base`` lives in the unit ``samplers``; the package itself is ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(source: str, package: str) -> list[tuple[str, bool]]:
    """Every module that a source imports, at any depth, and whether it does so at the top level.

    ``package`` is the dotted name that relative imports count from.
    """
    syntax = ast.parse(source)
    inside = {
        id(child)
        for node in ast.walk(syntax)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            if base == "slt_jax":
                # from slt_jax import tree: the file tree.py, not the front door
                units = [f"slt_jax.{a.name}" if a.name in FLOORS else "slt_jax" for a in node.names]
                found += [(unit, id(node) not in inside) for unit in units]
            else:
                found.append((base, id(node) not in inside))
    return found


def violations(path: str, source: str) -> list[str]:
    """What is wrong with the imports of a file, given its path inside the package."""
    parts = Path(path).with_suffix("").parts
    unit = parts[0]
    if unit not in FLOORS:
        return [f"{path}: {unit!r} has no floor; add it to FLOORS"]
    package = ".".join(["slt_jax", *parts[:-1]])
    wrong = []
    for module, at_top in imports(source, package):
        root = module.split(".")[0]
        if root == "slt_jax":
            other = unit_of(module)
            if other != unit and FLOORS.get(other, 99) >= FLOORS[unit]:
                wrong.append(f"{path}: {unit} (floor {FLOORS[unit]}) imports {module} (floor {FLOORS.get(other)})")
        elif root in HEAVY:
            places, in_functions = HEAVY[root]
            if not any(fnmatchcase(path, place) for place in places):
                wrong.append(f"{path}: {root} is allowed only in {places}")
            elif in_functions and at_top:
                wrong.append(f"{path}: {root} only inside the function that needs it")
    return wrong


def length_violation(path: str, source: str) -> str | None:
    lines = source.splitlines()
    if len(lines) > 300 and "because" not in lines[0]:
        return f"{path}: {len(lines)} lines; split it, or say 'because ...' in its first line"
    return None


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_imports_point_down_and_heavy_libraries_stay_in_their_rooms(file):
    path = file.relative_to(PACKAGE).as_posix()
    assert violations(path, file.read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_no_module_is_longer_than_300_lines_without_a_reason(file):
    assert length_violation(file.name, file.read_text()) is None


def test_what_judges_an_estimator_never_leans_on_it():
    for unit in ("truths", "programs"):
        for forbidden in ("samplers", "curvature", "sampling", "estimators"):
            assert violations(f"{unit}/new.py", f"from slt_jax.{forbidden} import x") != []
        for allowed in ("types", "problem", "tree", "loss", "restriction", "posterior"):
            assert violations(f"{unit}/new.py", f"from slt_jax.{allowed} import x") == []


BAD = {
    "upward": ("samplers/new.py", "from slt_jax.estimators import llc"),
    "upward, as a name": ("posterior.py", "from slt_jax import sampling"),
    "upward, inside a function": ("tree.py", "def f():\n    import slt_jax.loss"),
    "upward, relative": ("samplers/new.py", "from ..sampling import sample"),
    "upward, relative to the package": ("loss.py", "from . import posterior"),
    "sideways": ("samplers/new.py", "from slt_jax.curvature import sharpness"),
    "sideways among files": ("loss.py", "from slt_jax import restriction"),
    "through the front door": ("estimators/new.py", "import slt_jax as slt"),
    "a name through the front door": ("estimators/new.py", "from slt_jax import sample"),
    "without a floor": ("utils.py", "import jax"),
    "heavy in a kernel": ("samplers/new.py", "import flax.linen as nn"),
    "heavy under a guard": ("report.py", "if True:\n    from xarray import Dataset"),
    "plots elsewhere": ("report/html.py", "def f():\n    import matplotlib.pyplot as plt"),
    "scipy at the top": ("truths/new.py", "from scipy.optimize import linprog"),
    "sampler library at the top": ("samplers/hmc.py", "import blackjax"),
}
GOOD = {
    "downward": ("estimators/new.py", "from slt_jax import tree\nfrom slt_jax.sampling import sample"),
    "inside one folder": ("samplers/new.py", "from slt_jax.samplers.base import Info\nfrom .sgld import sgld"),
    "the adapter": ("flax.py", "import flax.linen\nfrom flax import nnx\nfrom slt_jax.types import PyTree"),
    "scipy in a function": ("truths/new.py", "def f():\n    from scipy.optimize import linprog"),
    "the command line": ("cli.py", "import slt_jax as slt\nfrom slt_jax import storage\nimport rich.progress"),
    "a folder of its own": ("storage/tree.py", "import xarray\nimport zarr\nfrom orbax import checkpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_import_is_found(case):
    assert len(violations(*BAD[case])) == 1


@pytest.mark.parametrize("case", GOOD)
def test_a_good_import_is_let_through(case):
    assert violations(*GOOD[case]) == []


def test_a_long_module_is_found_unless_it_says_why():
    body = "x = 1\n" * 301
    assert length_violation("long.py", '"""Long."""\n' + body) is not None
    assert length_violation("long.py", '"""Long, because the table is one table."""\n' + body) is None
    assert length_violation("short.py", body[: 6 * 299]) is None


def test_a_library_of_samplers_enters_through_one_file_only():
    for library in ("blackjax", "numpyro", "matfree", "pymbar"):
        users = [f for f in FILES if any(m.split(".")[0] == library for m, _ in imports(f.read_text(), "slt_jax"))]
        assert len(users) <= 1, f"{library} is imported by {users}"


def loaded_by(program: str) -> set[str]:
    """The modules that a fresh process has loaded when it has run a program."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(sorted(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    return set(ast.literal_eval(shown.stdout))


def test_importing_the_library_imports_nothing_heavy():
    """Only jax and numpy at run time: the kernels run on a bare accelerator machine."""
    loaded = loaded_by("import slt_jax; slt_jax.llc, slt_jax.samplers.sgld")
    roots = {module.split(".")[0] for module in loaded}
    # jax itself loads parts of scipy where it is installed
    assert roots & (set(HEAVY) - {"scipy"}) == set()
    assert "jax" in roots
    units = {unit_of(module) for module in loaded if module.startswith("slt_jax.")}
    floors = max(FLOORS[unit] for unit in units)
    assert floors == FLOORS["estimators"], f"{units}: what llc does without is imported on first use"


def test_what_is_imported_on_first_use_is_there_when_it_is_named():
    loaded = loaded_by("import slt_jax; slt_jax.flow")
    assert "slt_jax.ladder" in loaded
    assert "slt_jax.response" not in loaded
    assert [name for name in slt_jax.__all__ if not hasattr(slt_jax, name)] == []
    assert set(slt_jax.__all__) <= set(dir(slt_jax))
    assert slt_jax.Truth is slt_jax.truths.Truth
    with pytest.raises(AttributeError, match="no attribute 'flows'"):
        _ = slt_jax.flows


def test_eight_devices_are_visible():
    assert jax.device_count() == 8
