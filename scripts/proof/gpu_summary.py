"""Writes OUT/summary.json and OUT/logs.tar.gz from what scripts/gpu_check.sh has done so far.

    python scripts/proof/gpu_summary.py CALL OUT WORK [--check]

WORK holds steps.tsv (name, exit code, milliseconds, limit in seconds, a note), facts.json, data.txt and logs/. --check also
prints the steps, and fails where OUT holds more than may be taken home.
"""

import io
import json
import os
import sys
import tarfile
from pathlib import Path

FILES, RESULTS, BYTES, FOLDERS = 8, 5, 16 << 20, 2
LOG_END = 2 << 20  # bytes of a log that are kept: its end


def steps_of(work: Path) -> list[dict]:
    """The steps in the order in which they ended."""
    path = work / "steps.tsv"
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        name, code, milliseconds, limit, note = line.split("\t")
        step = {"step": name, "exit": int(code), "seconds": int(milliseconds) / 1000, "limit": int(limit)}
        found.append(step | ({"note": note} if note else {}))
    return found


def write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    half = path.with_name(path.name + ".half")
    half.write_bytes(content)
    os.replace(half, path)


def archive(logs: Path) -> bytes:
    """The steps' logs as tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(logs.glob("*.log")):
            content = path.read_bytes()[-LOG_END:]
            entry = tarfile.TarInfo(f"logs/{path.name}")
            entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def broken_limits(out: Path) -> list[str]:
    """What is too much in `out`."""
    files = [path for path in out.rglob("*") if path.is_file()]
    results = [path for path in files if path.suffix == ".json" and path.name != "summary.json"]
    found = [f"{len(files)} files, {FILES} are allowed"] if len(files) > FILES else []
    found += [f"{len(results)} results, {RESULTS} are allowed"] if len(results) > RESULTS else []
    found += [f"{path.name}: {path.stat().st_size:,} bytes" for path in files if path.stat().st_size >= BYTES]
    found += [f"{path}: too deep" for path in files if len(path.relative_to(out).parts) > FOLDERS + 1]
    return found


def main() -> None:
    """Writes both files; with --check prints and judges."""
    call, out, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    facts, data, steps = work / "facts.json", work / "data.txt", steps_of(work)
    summary = {
        "call": int(call),
        "seconds": round(sum(step["seconds"] for step in steps), 1),
        "failed": [step["step"] for step in steps if step["exit"]],
        "data": data.read_text().strip() if data.exists() else "none",
        "steps": steps,
        "machine": json.loads(facts.read_text()) if facts.exists() else {},
    }
    write(out / "logs.tar.gz", archive(work / "logs"))
    write(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    if "--check" not in sys.argv:
        return
    for step in steps:
        print(f"{step['step']:>16}  exit {step['exit']:<3} {step['seconds']:7.1f} s  {step.get('note', '')}")
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    print(f"{len(sizes)} files, the largest {max(sizes):,} bytes; {summary['seconds']} s in steps")
    broken = broken_limits(out)
    print("".join(f"error: {out}: {what}\n" for what in broken), end="")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
