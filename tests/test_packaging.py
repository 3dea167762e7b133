"""What is installed is what is imported: a module that pyproject.toml forgets works in a checkout and nowhere else."""

import tomllib
from pathlib import Path

import cli
from embedder.superresolution import NETWORKS
from embedder.superresolution.network import CARD_FILE, WEIGHTS_FILE

REPOSITORY = Path(cli.__file__).resolve().parent
NOT_INSTALLED = {"tests", "benchmarks"}


def test_every_packaged_network_is_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    home = REPOSITORY / "embedder" / "superresolution"
    installed = {path for pattern in project["package-data"]["embedder.superresolution"] for path in home.glob(pattern)}
    assert installed == {home / name / file for name in NETWORKS for file in (WEIGHTS_FILE, CARD_FILE)}


def test_the_starter_models_are_installed_whole():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    home = REPOSITORY / "starter"
    installed = {path for pattern in project["package-data"]["starter"] for path in home.glob(pattern)}
    kept = {path for path in home.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(kept) > 10
    assert kept <= installed


def test_every_module_and_package_is_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    modules = {path.stem for path in REPOSITORY.glob("*.py")}
    packages = {
        path.parent.relative_to(REPOSITORY).as_posix().replace("/", ".")
        for path in REPOSITORY.glob("[a-z]*/**/__init__.py")
        if path.relative_to(REPOSITORY).parts[0] not in NOT_INSTALLED
    }
    assert modules == set(project["py-modules"])
    assert packages - {name for name in packages if name.split(".")[0] in {"build", "venv"}} == set(project["packages"])
