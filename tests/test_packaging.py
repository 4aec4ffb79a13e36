"""The wheel holds what it should, and nobody else owns our package names."""

import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("meleewm", "schemas", "ingest", "store", "service", "training")


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_else_owns_our_names(package: str) -> None:
    owners = set(packages_distributions().get(package, []))
    assert owners <= {"meleewm"}, f"{owners} would overwrite our {package}/"


@pytest.mark.slow
def test_wheel_runs_beside_a_package_of_the_same_name(tmp_path: Path) -> None:
    """Console scripts work from a folder that has a `training/` package of its own."""
    build = [sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", "--out-dir"]
    subprocess.run([*build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == set(PACKAGES)
    assert "schemas/slippi_ids.json" in names
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    command = Path(sys.executable).parent / "meleewm"
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "VERB" in done.stdout
