"""Links the installed packages that a wheel depends on, and those that they depend on, into a folder.

    python scripts/proof/link_packages.py WHEEL FOLDER

A package that is not installed is an error; the versions are left to pip.
"""

import re
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def needed(wheel: Path) -> dict[str, Distribution]:
    """The installed distributions that the wheel needs without its extras, directly or not, by name."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    found: dict[str, Distribution] = {}
    queue = [(Requirement(line), {""}) for line in lines]
    seen = set()
    while queue:
        requirement, extras = queue.pop()
        if (str(requirement), *extras) in seen:
            continue
        seen.add((str(requirement), *extras))
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            found[requirement.name] = package = distribution(requirement.name)
        except PackageNotFoundError:
            sys.exit(f"error: {requirement.name}: it is not installed beside {sys.executable}; pip install it")
        queue += [(Requirement(line), {"", *requirement.extras}) for line in package.requires or []]
    return found


def main() -> None:
    """Makes the links."""
    wheel, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir()
    packages = needed(wheel)
    for package in packages.values():
        for name in sorted({file.parts[0] for file in package.files or []} - {"..", "__pycache__"}):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(Path(str(package.locate_file(name))))
    print(f"{len(packages)} packages of {sys.prefix} are linked")


if __name__ == "__main__":
    main()
