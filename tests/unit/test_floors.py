"""Imports go down the floors of docs/architecture.md, never up and never in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("common", "models"),
    ("metrics", "augmentation", "experiment"),
    ("scoring", "inference"),
    ("training", "evaluation", "serve"),
    ("report", "export", "ablation"),
)
FLOOR_OF = {package: number for number, floor in enumerate(FLOORS) for package in floor}


def imported_modules(file: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages_named_by(folder: Path) -> dict[str, set[str]]:
    """Return the packages of voice_biometrics (and ``data_prep``) that each file of ``folder`` imports."""
    named = {}
    for file in sorted(folder.rglob("*.py")):
        parts = [name.split(".") for name in imported_modules(file)]
        ours = {part[1] for part in parts if part[0] == "voice_biometrics" and len(part) > 1}
        named[file.relative_to(ROOT).as_posix()] = ours | {part[0] for part in parts if part[0] == "data_prep"}
    return named


@pytest.mark.parametrize("package", sorted(FLOOR_OF))
def test_a_package_imports_only_itself_and_lower_floors(package):
    named = packages_named_by(ROOT / "voice_biometrics" / package)
    assert named
    for file, packages in named.items():
        for other in packages - {package}:
            assert other in FLOOR_OF and FLOOR_OF[other] < FLOOR_OF[package], f"{file} imports {other}"


def test_every_package_has_its_floor():
    found = {path.parent.name for path in (ROOT / "voice_biometrics").glob("*/__init__.py")}
    assert found == set(FLOOR_OF)


def test_data_prep_imports_common_only():
    named = packages_named_by(ROOT / "data_prep")
    assert named
    for file, packages in named.items():
        assert packages <= {"common", "data_prep"}, file


def test_modules_of_a_package_do_not_import_each_other_in_a_circle():
    files = {path: imported_modules(path) for path in (ROOT / "voice_biometrics").rglob("*.py")}
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    below = {
        names[path]: {other for other in names.values() if other in _prefixes(imports)}
        for path, imports in files.items()
    }
    while below:
        ground = {name for name, others in below.items() if not others & below.keys() - {name}}
        assert ground, f"in a circle: {', '.join(sorted(below))}"
        below = {name: others for name, others in below.items() if name not in ground}


def _prefixes(imports: set[str]) -> set[str]:
    return imports | {name.rpartition(".")[0] for name in imports}


def test_inference_loads_neither_torch_nor_pandas():
    code = (
        "import sys\nfrom voice_biometrics.inference import cli, Recognizer\n"
        "print({'torch', 'pandas', 'scipy', 'speechbrain', 'matplotlib'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
