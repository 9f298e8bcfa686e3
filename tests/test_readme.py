"""Every code block of the README runs, and its two commands are the promised ones."""

import re
import shlex
from pathlib import Path

import pytest

from slt_jax import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code.strip() for language, code in BLOCKS if language == "bash"]


def test_there_is_something_to_run():
    assert len(PYTHON) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PYTHON)))
def test_a_python_block_runs_by_itself(index):
    exec(compile(PYTHON[index], f"README block {index}", "exec"), {"__name__": f"readme_{index}"})


def test_the_two_commands_do_all_the_set_up():
    assert SHELL == ["pip install -e . && slt-jax demo", "pip install -e '.[test]' && pytest"]


def test_the_exact_answer_on_the_command_line_is_printed(capsys):
    command = re.search(r"`(slt-jax truth [^`]+)`", TEXT).group(1)
    assert cli.main(shlex.split(command)[1:]) == 0
    assert "learning coefficient" in capsys.readouterr().out


def test_every_package_of_the_map_exists():
    named = re.findall(r"`([a-z_]+)/?`", "".join(re.findall(r"^\| \d+ \| ([^|]*)\|", TEXT, re.MULTILINE)))
    there = {path.stem for path in (ROOT / "slt_jax").iterdir() if not path.name.startswith("_")}
    assert set(named) <= there
    assert there - {"py"} <= {*named, "__init__"}
