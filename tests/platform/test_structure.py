"""The shape of the repository: what must hold for the packages, the locks and the README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from soundpost.config import Settings
from soundpost.training.dac import CaptionOptions

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {
    "platform": "soundpost",
    "workers": "soundpost_workers",
    "indexer": "soundpost_indexer",
    "ui": "soundpost_ui",
    "migrations": "soundpost_migrations",
}
TOP_LEVEL = (*SOURCE_ROOTS, "tests", "benchmarks", "docs")
SHIPPED_WEIGHTS = "platform/soundpost/models/"
MEGABYTE = 1_000_000
LOCKS = ("bare", "cpu", "gpu", "dev", "train")
CUDA = re.compile(r"nvidia|cuda|cudnn|triton|faiss-gpu")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, Version]:
    """Return the packages of a lock; a line that is not pinned to one version fails."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    pins = {}
    for requirement in wanted:
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{requirement} is not pinned"
        assert "*" not in pin.version, f"{requirement} is not pinned"
        pins[canonicalize_name(requirement.name)] = Version(pin.version)
    return pins


# --- packages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", TOP_LEVEL)
def test_no_top_level_folder_is_a_package(folder: str) -> None:
    # platform/__init__.py would hide the standard library's `platform`.
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_tests_folder_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize(("folder", "package"), SOURCE_ROOTS.items())
def test_a_source_root_holds_one_typed_package_and_nothing_to_import_beside_it(
    folder: str, package: str
) -> None:
    importable = {
        path.name.partition(".")[0]
        for path in (ROOT / folder).iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
    }
    assert importable == {package}
    assert importable.isdisjoint(sys.stdlib_module_names)
    assert (ROOT / folder / package / "__init__.py").is_file()
    assert (ROOT / folder / package / "py.typed").is_file()


def test_no_script_folder_hides_a_standard_module() -> None:
    # Python puts a script's own folder first on the path.
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts.isdisjoint(sys.stdlib_module_names)


def test_pyproject_builds_every_package() -> None:
    tool = project()["tool"]
    packages = tool["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == [f"{folder}/{package}" for folder, package in SOURCE_ROOTS.items()]


def test_the_command_line_needs_only_the_bare_install() -> None:
    declared = project()["project"]["optional-dependencies"]
    heavy = {Requirement(text).name for text in declared["platform"]}
    heavy |= {"faiss", "alembic", "psycopg"}
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(name + " is not in the bare install", name=name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["soundpost", "--help"]
from soundpost_ui.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ingest" in done.stdout


def test_tracked_files_stay_small() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    large = {
        str(path.relative_to(ROOT))
        for path in paths
        if path.is_file() and path.stat().st_size > MEGABYTE
    }
    assert {name for name in large if not name.startswith(SHIPPED_WEIGHTS)} == set()


# --- make and the locks -----------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE))
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets
    assert {"help", "demo", "test", "lint", "bench", "eval-encoder", "lock", "clean"} <= targets


def test_docs_train_as_make_does() -> None:
    """Whoever takes the steps one by one comes to the same network."""
    makefile = (ROOT / "Makefile").read_text()
    told = (ROOT / "docs" / "training-explanations.md").read_text()
    for variable, option in {
        "EXPLAIN_GROUPS": "--split train --groups",
        "STAGE_2_STEPS": "--stage 2 --steps",
        "EXPLAIN_STEPS": "--stage 3 --steps",
    }.items():
        (number,) = re.findall(rf"^{variable} \?= (\d+)$", makefile, flags=re.MULTILINE)
        assert re.findall(rf"{option} (\d+)", told) == [number]
    (groups,) = re.findall(r"--split dev --groups (\d+)", makefile)
    assert f"--split dev --groups {groups} " in told


def test_docs_say_how_much_the_twin_teaches() -> None:
    told = (ROOT / "docs" / "captions.md").read_text()
    assert f"(the others, {1.0 - CaptionOptions().taught:.0%}".replace("%", " %") in told


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_everything_but_torch(name: str) -> None:
    pins = locked(name)
    assert pins
    assert "torch" not in pins


@pytest.mark.parametrize("name", [lock for lock in LOCKS if lock != "gpu"])
def test_only_the_gpu_lock_draws_in_cuda(name: str) -> None:
    assert [package for package in locked(name) if CUDA.search(package)] == []


def test_the_locks_agree_with_each_other() -> None:
    versions: dict[str, set[Version]] = {}
    for name in LOCKS:
        for package, version in locked(name).items():
            versions.setdefault(package, set()).add(version)
    assert {package for package, found in versions.items() if len(found) > 1} == set()


def test_the_locks_meet_what_pyproject_asks_for() -> None:
    declared = project()["project"]
    extras = declared["optional-dependencies"]
    wanted = {
        "bare": declared["dependencies"],
        "cpu": [*extras["platform"], *extras["cpu"]],
        "gpu": [*extras["platform"], *extras["gpu"]],
        "dev": extras["dev"],
        "train": extras["train"],
    }
    for name, texts in wanted.items():
        pins = locked(name) | {"torch": torch_pin()}
        for requirement in map(Requirement, texts):
            if requirement.name == "soundpost":
                continue
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def torch_pin() -> Version:
    text = (ROOT / "requirements" / "torch.txt").read_text()
    (found,) = re.findall(r"^torch==(\S+)$", text, flags=re.MULTILINE)
    return Version(found)


# --- README -----------------------------------------------------------------------------------


def settings_table() -> str:
    """Return README's table of settings, as it follows from the class."""
    rows = ["| variable | default | what it sets |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = str(field.default).replace(str(Path.home()), "~")
        shown = f"`{default}`" if default else ""
        rows.append(f"| `SOUNDPOST_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


def test_readme_names_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    _, _, rest = readme.partition("<!-- settings: begin -->")
    shown, _, _ = rest.partition("<!-- settings: end -->")
    assert shown.strip() == settings_table(), f"README's table should be:\n{settings_table()}"


def test_readme_names_every_folder_of_code() -> None:
    readme = (ROOT / "README.md").read_text()
    rooms = {path.parent for path in (ROOT / "platform/soundpost").glob("*/__init__.py")}
    packages = {ROOT / folder / package for folder, package in SOURCE_ROOTS.items()}
    folders = (rooms | packages) - {ROOT / "platform/soundpost"}
    assert {
        str(f.relative_to(ROOT)) for f in folders if str(f.relative_to(ROOT)) not in readme
    } == set()
