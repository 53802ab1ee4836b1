"""Names, paths, classes, versions and texts of strangers on a terminal: shown as they are, never obeyed; and broken streams."""

import ast
import io
import json
import os
import pty
import subprocess
import sys
import warnings
from pathlib import Path

import forked_python
import pytest
from PIL import Image
from rich.table import Table as RichTable
from rich.text import Text
from safetensors import safe_open
from safetensors.torch import load_file, save

import cifarnet.cli
from cifarnet.cli import run
from cifarnet.cli.common import show_warning
from cifarnet.cli.streams import Lossy, fitting
from cifarnet.cli.table import Column, Facts, Lines, Table
from cifarnet.cli.terminal import Terminal
from cifarnet.core.errors import printable

# What each must be shown as.
HOSTILE = {
    "[bold]x[/bold]": "[bold]x[/bold]",
    "[/]": "[/]",
    "r[/b]x": "r[/b]x",
    "[link=https://evil.example]a[/link]": "[link=https://evil.example]a[/link]",
    ":skull:": ":skull:",
    "\\[red]": "\\[red]",
    "\x1b[31mred": "\\x1b[31mred",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x1b]8;;https://evil.example\x1b\\": "\\x1b]8;;https://evil.example\\x1b\\",
    "\x9b31mred": "\\x9b31mred",
    "\x9d0;title\x9c": "\\x9d0;title\\x9c",
    "gpj.\u202eexe": "gpj.\\u202eexe",
    "\u2066a\u2069": "\\u2066a\\u2069",
    "ze\u200bro": "ze\\u200bro",
    "\ufeffbom": "\\ufeffbom",
    "\u3164": "\\u3164",
    "two\nlines": "two\\nlines",
    "\u2028line": "\\u2028line",
    "over\rwritten": "over\\rwritten",
    "back\x08space": "back\\x08space",
    "nul\x00": "nul\\x00",
    "del\x7f": "del\\x7f",
    "\udcff": "\\udcff",
}
NAMES = [name for name in HOSTILE if "/" not in name and "\0" not in name]  # what a file can be called
TRAIN = ["--arch", "baseline", "--epochs", "1", "--batch-size", "64", "--precision", "fp32", "--workers", "0"]
DATA = ["--data-dir", "data"]
TRAIN += ["--augment", "none", "--device", "cpu"]


def clean(text):
    """Nothing in it does anything else than being seen."""
    assert "".join(map(printable, text.split("\n"))) == text.replace("\n", ""), text
    return text


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (32, 32), (colour * 10, 255 - colour * 10, 99)).save(file, "png")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of images whose classes have hostile names, and a run on them in a folder named `r[/b]x`."""
    folder = tmp_path_factory.mktemp("foreign")
    for split in ("train", "test"):
        for index, name in enumerate(NAMES):
            for copy in range(2):
                picture(folder / "data" / split / name / f"{copy}.png", index)
    (folder / "r[").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", "--dataset", "folder", "--data-dir", "data", *TRAIN, "--out", "r[/b]x", "-q"]) == 0
    return folder


@pytest.fixture
def clean_cli(cli, hostile, monkeypatch):
    """Runs a command in the hostile folder; its output is checked, its exit code must be as expected."""
    monkeypatch.chdir(hostile)

    def call(*arguments, code=0):
        found, out, err = cli(*arguments)
        assert found == code, err
        assert "MarkupError" not in err and "internal" not in err and "Traceback" not in err
        return clean(out), clean(err)

    return call


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_a_text_is_shown_and_not_obeyed(text, shown):
    """By every way that leads to a terminal; without colours there is no control code that is our own."""
    assert printable(text) == shown and printable(shown) == shown
    console = Terminal(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    columns = [Column("name", number=False), Column(text)]
    plain = RichTable(text)
    plain.add_row(text)
    lines = Lines(console, [Column("name", width=60)])
    ways = {
        "print": lambda: console.print(text),
        "say": lambda: console.say(("x ", "dim"), text),
        "remark": lambda: console.remark("warning", text),
        "path": lambda: console.say(Path(text) if "//" not in text else text),
        "cell and heading": lambda: console.print(Table(columns, [(text, "1")] * 3, text)),
        "facts": lambda: console.print(Facts([(text, text)])),
        "lines": lambda: lines.line([text]),
        "status": lambda: console.print(console.status(text)),
        "Rich's own": lambda: console.print(plain, style="red"),
        "Text": lambda: console.print(Text("a") + text) if "\n" not in text else None,
    }
    for name, way in ways.items():
        console.file = io.StringIO()
        way()
        bare = clean(console.file.getvalue())
        # Rich's Text drops some control codes itself
        assert shown in bare or name in ("Text", "Rich's own"), (name, bare)


def test_marks_of_many_characters():
    """Whatever is not seen is escaped, and nothing else."""
    for code in [*range(0x250), *range(0x2000, 0x2070), *range(0xFE00, 0xFE10), 0xFEFF, 0x1F600, 0x4E2D, 0xE0001]:
        character = chr(code)
        expected = character if character.isprintable() else character.encode("unicode_escape").decode()
        assert printable(character) == expected
    assert printable(b"a\xff\x1b") == "a\\udcff\\x1b" and printable(Path("Köln – 東京 ✓")) == "Köln – 東京 ✓"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", None, "no-such-encoding"])
def test_what_an_encoding_lacks_is_replaced(encoding):
    text = fitting("a × b · c – d → e █ ± … Köln 東京 ✓ 😀 \x1b", encoding)
    if encoding in ("utf-8", None):
        assert text == "a × b · c – d → e █ ± … Köln 東京 ✓ 😀 \\x1b"
        return
    if encoding != "no-such-encoding":
        text.encode(encoding)
    assert "\\u6771\\u4eac" in text and "->" in text
    assert "a x b . c - d -> e # +- ... K\\xf6ln" in text or encoding != "ascii"


def test_classes_of_a_run(clean_cli, hostile):
    """All but the figures of the run: the classes on every screen that names them."""
    out, _ = clean_cli("eval", "r[/b]x", *DATA, "--figure", "c.png")
    assert all(HOSTILE[name] in out for name in NAMES)
    found = json.loads(clean_cli("eval", "r[/b]x", *DATA, "--json")[0])
    assert sorted(row["name"] for row in found["classes"]) == sorted(HOSTILE[name] for name in NAMES)
    out, err = clean_cli("train", "--resume", "--out", "r[/b]x")
    assert "r[/b]x" in out and "r[/b]x" in err
    clean_cli("train", "--dataset", "folder", "--data-dir", "data", *TRAIN, "--overwrite", "--out", "again\x1b[2J")
    clean_cli("complexity", "--checkpoint", "r[/b]x", "--layers")
    clean_cli("doctor", "--data-dir", "\x1b[31mnowhere\u202e")
    assert "again\\x1b[2J" in clean_cli("runs", ".")[0] and "b]x" in clean_cli("runs", "r[")[0]
    clean_cli("runs", ".", "--json")
    assert "\\x1b[2J" in os.fsdecode(clean_cli("eval", "again\x1b[2J", *DATA)[0].encode())


def test_names_of_files(clean_cli, hostile):
    folder = hostile / "pictures"
    for index, name in enumerate(NAMES):
        picture(folder / f"{name}.png", index)
    (folder / "bad\x1b[31m\u202e.png").write_text("no image")
    out, err = clean_cli("predict", "-r", "pictures", "--checkpoint", "r[/b]x", code=1)
    assert all(f"{HOSTILE[name]}.png" in out for name in NAMES) and "bad\\x1b[31m\\u202e.png" in err
    clean_cli("predict", "-r", "pictures", "--checkpoint", "r[/b]x", "--json", code=1)
    clean_cli("predict", "gone\x9b31m\n.png", "--checkpoint", "r[/b]x", code=1)
    for name in ("\x1b[31mred.png", "gpj.\u202eexe.png", "\udcff.png"):
        out, _ = clean_cli("featuremaps", folder / name, "--checkpoint", "r[/b]x", "--layer", "conv1", "--out", "maps")
        assert out.startswith("maps/") and out.count("\n") >= 2


@pytest.mark.parametrize("title", ["[/b]\x1b[31m", "a\nb\u202e", "\x9b31m[bold]"])
def test_titles_and_paths_of_figures(clean_cli, title):
    for figure in ("confusion", "grid"):
        out, _ = clean_cli(
            "visualize", figure, "r[/b]x", *DATA, "--title", title, "--out", f"\x1b[31m{figure}[/b]{len(title)}.png"
        )
        assert out == f"\\x1b[31m{figure}[/b]{len(title)}.png\n"
    assert (
        clean_cli("visualize", "curves", "r[/b]x", "--title", title, "--out", f"\u202e{len(title)}.png")[0]
        == f"\\u202e{len(title)}.png\n"
    )
    out, _ = clean_cli(
        "report", "r[/b]x", *DATA, "--title", title, "--note", title, "--out", f"\x1b[31mr{len(title)}.md"
    )
    assert "folder: b]x, accuracy" in out and out.endswith(f"\n\\x1b[31mr{len(title)}.md\n")


@pytest.mark.parametrize("text", ["[/b]", "r[/b]x\x1b[31m", "\u202e1.0", "two\nlines", "[red]1.0"])
def test_versions_in_a_state(clean_cli, hostile, text):
    """What a state file says of the torch that wrote it stands in a warning."""
    path = hostile / "r[/b]x" / "state.safetensors"
    kept = path.read_bytes()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        metadata["versions"] = json.dumps({"torch": text, "gpu": text})
        path.write_bytes(save(load_file(path), metadata))
        _, err = clean_cli("train", "--resume", "--out", "r[/b]x", *DATA)
        assert f"warning: torch was {printable(text)}" in err
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize("text", [name for name in HOSTILE if "\0" not in name])
def test_options_that_are_refused(cli, text):
    """One line, with the text in it escaped."""
    for arguments in (
        ["train", "--arch", text],
        ["train", "--loss", text],
        ["train", "--dataset", text],
        ["train", "--recipe", text],
        ["train", "--device", text],
        ["train", "--epochs", text],
        ["train", "--config", text],
        ["train", "--loss-option", text],
        ["train", f"--{text}"],
        ["eval", f"no/{text}"],
        ["report", f"no/{text}"],
        ["visualize", "umap", "--method", text],
        ["visualize", "curves", f"no/{text}"],
        ["featuremaps", "x.png", "--class", text],
        ["doctor", "--data-dir", "x", text],
        [text],
    ):
        code, out, err = cli(*arguments)
        assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, (arguments, err)
        clean(err)


def test_a_python_warning_and_a_traceback(capsys, tmp_path):
    show_warning(UserWarning("[/b] \x1b[31m a\u202e"))
    assert capsys.readouterr().err == "warning: [/b] \\x1b[31m a\\u202e\n"
    assert run(["--debug", "eval", str(tmp_path / "\x1b[31m\u202ex")]) == 2
    assert "Traceback" in clean(capsys.readouterr().err)


def test_there_is_no_other_way_to_the_terminal():
    """Consoles and texts are made in one file, tables in another; print() writes JSON, helps and the version alone."""
    allowed = {
        "Console": {"terminal.py"},
        "Text": {"terminal.py", "table.py"},
        "RichTable": {"table.py"},
        "Table": {
            "tables.py",
            "cost_tables.py",
            "data_tables.py",
            "deletion_tables.py",
            "export_tables.py",
            "identify_tables.py",
            "quality_tables.py",
            "series_tables.py",
            "stage_tables.py",
            "beside_tables.py",
            "tune_tables.py",
            "verify_tables.py",
        },
        "print": {"common.py", "__init__.py", "grammar.py"},
        "from_markup": set(),
        "Syntax": set(),
        "Panel": set(),
        "echo": set(),
        "secho": set(),
    }
    found = 0
    for path in Path(cifarnet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name == "print" and isinstance(node.func, ast.Attribute):
                    continue  # of a console
                found += name in allowed
                assert name not in allowed or path.name in allowed[name], f"{path}: {name}()"
            if isinstance(node, ast.Attribute) and node.attr == "markup":
                raise AssertionError(f"{path}: markup")
    assert found > 5


# Streams that are broken.

QUICK = [
    sys.executable,
    "-m",
    "cifarnet",
    "train",
    "--dataset",
    "digits",
    *TRAIN,
    "--batch-size",
    "512",
    "--out",
    "run",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def finished(tmp_path):
    """The run is whole: its summary, its model and its figures are there."""
    names = {path.name for path in (tmp_path / "run").iterdir()}
    return names >= {"summary.json", "last.safetensors", "state.safetensors", "curves.png", "confusion.png"}


@pytest.mark.parametrize("broken", ["2>/dev/full", "2> >(head -c 1 >/dev/null)", "2>&-", "2>&- >&- <&-"])
def test_a_broken_stderr_ends_nothing(tmp_path, broken):
    if "full" in broken and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    start = QUICK[0] if "&-" in broken else forked_python.executable()  # streams that Python finds closed
    line = f"{' '.join(map(repr, [start, *QUICK[1:]]))} {broken}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and finished(tmp_path)
    assert "accuracy" in done.stdout or ">&- " in broken


def test_a_terminal_that_is_closed_ends_nothing(tmp_path):
    """stderr and stdout are terminals; the first goes away while training begins, the second stays."""
    (lost, first), (kept, second) = pty.openpty(), pty.openpty()
    line = [forked_python.executable(), *QUICK[1:]]
    process = subprocess.Popen(line, cwd=tmp_path, env=ENVIRONMENT, stdout=second, stderr=first, stdin=second)
    os.close(first)
    os.read(lost, 10)
    os.close(lost)
    assert process.wait(120) == 0 and finished(tmp_path)
    os.close(second)
    shown = b""
    try:
        while block := os.read(kept, 65536):
            shown += block
    except OSError:  # the end of a terminal
        pass
    os.close(kept)
    assert b"accuracy" in shown


def test_an_error_that_nobody_can_read_keeps_its_code(tmp_path):
    for line, code in (("train --arch nothing 2>/dev/full", 2), ("predict nothing.png 2>&-", 1)):
        done = subprocess.run(["bash", "-c", f"{sys.executable} -m cifarnet {line}"], cwd=tmp_path, env=ENVIRONMENT)
        assert done.returncode == code


@pytest.mark.parametrize("command", ["doctor", "doctor --json", "--help", "--version"])
def test_results_that_cannot_be_written(command):
    """One line and 1; a reader that went away is no error, and says nothing."""
    line = f"{forked_python.executable()} -m cifarnet {command}"
    done = subprocess.run(["bash", "-c", f"{line} >/dev/full"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: stdout: cannot be written (No space left on device); send the results elsewhere\n"
    line = f"{line} | head -c 0; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout in ("141\n", "0\n") and done.stderr == ""  # 0 where all went into the pipe before it closed


def test_streams_without_utf_8(hostile):
    line = [sys.executable, "-m", "cifarnet", "eval", "r[/b]x", *DATA, "--figure", "ascii.png"]
    done = subprocess.run(line, cwd=hostile, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and done.stderr.isascii() and b"-----" in done.stdout and b"\\u202e" in done.stdout


def test_a_locale_without_utf_8(hostile):
    """Where Python itself is kept from UTF-8, names are bytes that it cannot decode."""
    picture(hostile / "Köln.png", 3)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = [sys.executable, "-m", "cifarnet", "predict", "Köln.png", "--checkpoint", "r[/b]x"]
    done = subprocess.run(line, cwd=hostile, env=ENVIRONMENT | plain, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and done.stderr.isascii() and b"K\\udcc3\\udcb6ln.png" in done.stdout


def test_lossy_drops_and_goes_on():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = write

    assert Lossy(Full()).write("abc") == 3 and Lossy(Full()).isatty() is False
    closed = io.StringIO()
    closed.close()
    Lossy(closed).write("abc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Lossy(closed).flush()
