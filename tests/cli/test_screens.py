"""Every screen at 60, 80 and 120 columns: as kept in screens/, no line too long, no number cut, in ASCII where that is all.

To keep a screen anew, delete its file, run this twice, and look at it.
"""

import functools
import io
import re
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import report_runs
from rich.cells import cell_len
from screens import BASELINE, CIFAR, DATA, FOUND, PREDICTIONS, RESNETS, RUNS, SUMMARY, scores, training

from cifarnet.analysis.diagram import diagram
from cifarnet.analysis.report.results import Result
from cifarnet.cli import data_tables, doctor, tables, watcher
from cifarnet.cli.complexity import print_tables
from cifarnet.cli.headline import head_line
from cifarnet.cli.report_lines import print_report
from cifarnet.cli.stage_tables import stage_table
from cifarnet.cli.streams import fitting
from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Terminal, messages, results
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import plural
from cifarnet.losses import loss_constants
from cifarnet.losses.options import MarginOptions

KEPT = Path(__file__).parent / "screens"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3\d|4\d|9\d|10\d)\b[0-9;]*m")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """What Rich asks the environment for is set by the tests alone."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(watcher, "device_name", lambda device: "cpu (1 thread)")


# The screens: what prints each, and its numbers, each with the heading of its column ("": it is in no column).


def train(console, validation=False):
    run, records = training(validation)
    shown = watcher.TerminalWatcher(console, [("changed", "--arch baseline --dataset digits --epochs 200")])
    shown.start(run, SimpleNamespace(path="runs/baseline-ce-digits-1"))
    shown.table.head()
    for record in records:
        shown.epoch(run, record)
    tables.print_summary(console, SUMMARY)


def train_with_validation(console):
    train(console, validation=True)


TRAINED = [
    ("epoch", "8"),
    ("lr", "1.00e-03"),
    ("train loss", "2.2519"),
    ("train acc", "100.00%"),
    ("test acc", "47.61%"),
]
TRAINED += [("img/s", "1,684"), ("img/s", "1.23M"), ("time", "0.9 s"), ("time", "12,346 s"), ("test loss", "1.235e+05")]
SCORED = ["90.91%", "99.88%", "90.09% / 90.91% / 90.50%", "90.91% / 90.91% / 90.91%", "99.61%", "1.23%", "0.3141", "–"]
SCORED = [("", text) for text in (*SCORED, "9,990 images")]
NUMBERS = {
    "train": [*TRAINED, *SCORED, ("", "122,570"), ("", "1,442"), ("", "1 epoch")],
    "train-validation": [*TRAINED, *SCORED, ("val acc", "50.00%")],
    "eval": [*SCORED, ("precision", "90.09%"), ("recall", "90.91%"), ("F1", "90.50%"), ("images", "1,000"), ("images", "999")],
    "complexity": [
        ("parameters", "23,528,522"), ("× parameters", "192"), ("GMACs/image", "4.0871567"), ("× MACs", "899"), ("weights MB", "94.11"),
        ("GFLOPs/image", "23.0260000"), ("GMACs/batch", "8.1743135"), ("GFLOPs/batch", "46.0520000"), ("activations MB", "85.91"),
        ("bf16 MB", "116.31"), ("MMACs", "4,087.157"), ("MFLOPs", "8,174.313"), ("share", "100.0%"), ("output of an image", "1024×14×14"),
        ("", "32×32 images"), ("images a second", "1,234,567"), ("ms a pass", "0.81"),
    ],
    "complexity-one": [
        ("parameters", "23,528,522"), ("× parameters", "192"), ("GMACs/image", "4.0871567"), ("GFLOPs/image", "8.1743135"), ("× MACs", "899"),
        ("activations MB", "85.91"), ("weights MB", "94.11"), ("bf16 MB", "47.06"),
    ],
    "complexity-stages": [("resnet18", "3×3, 64"), ("resnet101", "23 blocks"), ("resnet152", "36 blocks"), ("", "1×1, 1024"), ("", "max 3×3, /2")],
    "predict": [("probability", text) for text in ("98.77%", "1.23%", "0.00%", "100.00%", "score -12.3")],
    "report": [("", "10,000 images"), ("", "250"), ("", "0.4"), ("", "18"), ("", "91.50%"), ("", "85.15%")],
    "runs": [("accuracy", "95.31%"), ("epochs", "250/250"), ("seed", "1234"), ("started", "2024-06-13 17:45"), ("", "resnet18-adaface-cifar10-1")],
    "data": [("train", "1,281,167"), ("train", "50,000"), ("test", "355"), ("classes", "1,000"), ("digest", "b2dc3329d4e27c01"), ("layout", "Python batches")],
    "data-folder": [("", text) for text in ("1,281,167", "50,000", "1,000", "0123456789abcdef", "12: no image's suffix")],
    "doctor": [("", text) for text in ("0.1.0", "Linux-6.18.44-generic-x86_64-with-glibc2.36", "2.14.1+cu130", "63.5 GB", "1 core")],
}  # fmt: skip


def complexity(console):
    timed = {
        "device": "cpu",
        "precision": "fp32",
        "milliseconds": 0.81,
        "images_per_second": 1_234_567.1,
        "repeats": 100,
    }
    rows = [cost.to_dict(BASELINE) | {"time": timed} for cost in RESNETS]
    print_tables(console, RESNETS, rows, BASELINE, layers=True)


@functools.cache
def networks():
    return [diagram(TrainConfig(arch=f"resnet{depth}"), 10) for depth in (18, 34, 50, 101, 152)]


def report(console):
    """Two runs on the same test images, and one that is left out."""
    finished = []
    for name, seed, accuracy in (("resnet18-adaface-cifar10-1", 17, 0.91), ("resnet18-adaface-cifar10-2", 18, 0.92)):
        config = TrainConfig(arch="resnet18", loss="adaface", dataset="cifar10", seed=seed)
        model = SimpleNamespace(head=SimpleNamespace(options=MarginOptions("adaface", loss_constants("adaface", {}))))
        path, info = Path("runs", name, "last.safetensors"), SimpleNamespace(config=config, epoch=250)
        with mock.patch("cifarnet.cli.headline.name_of", lambda path: str(path.parent)):  # there is no such folder here
            console.say(head_line(path, model, info, "cifar10 test, 10,000 images"))
        finished.append(Result(path.parent, config, report_runs.summary(accuracy), [], []))
    console.remark("warning", "left out: runs/broken: has no summary.json: the run has not ended")
    print_report(console, finished, 1)
    console.say("report.md")


SCREENS = {
    "train": train,
    "train-validation": train_with_validation,
    "eval": lambda console: tables.print_scores(console, scores(), "runs/latest/confusion.png"),
    "eval-100": lambda console: tables.print_scores(
        console, scores([f"class number {index}" for index in range(100)]), "runs/latest/confusion.png"
    ),
    "complexity": complexity,
    "complexity-stages": lambda console: console.print(stage_table(networks())),
    "complexity-one": lambda console: print_tables(
        console, RESNETS[:1], [RESNETS[0].to_dict(BASELINE) | {"batch": 1}], BASELINE, layers=False
    ),
    "predict": lambda console: console.print(tables.prediction_table(PREDICTIONS, 1.2345)),
    "report": report,
    "runs": lambda console: console.print(tables.runs_table(RUNS)),
    "data": lambda console: data_tables.print_all(console, DATA),
    "data-folder": lambda console: data_tables.print_one(console, DATA[-1]),
    "doctor": lambda console: doctor.show(console, FOUND),
}


def screen(name, width, encoding="utf-8", **options):
    """What the command prints; a character that the terminal lacks is an error."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    SCREENS[name](Terminal(file=file, width=width, **options))
    file.seek(0)
    return file.read()


def plain(text):
    """Without control codes and spaces at the ends of lines."""
    return "".join(f"{line.rstrip()}\n" for line in ANSI.sub("", text).splitlines())


def check(text, name, width, encoding="utf-8"):
    """No line is too long, nothing ends in an ellipsis, and each number is there whole or its column said to be missing."""
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text and "..." not in text
    said = re.sub(r"\s+", " ", " ".join(re.findall(r"(?m)^a wider terminal also shows: .*(?:\n(?! ).+)?", text)))
    flat = re.sub(r"\s+", " ", text)
    for pair in NUMBERS.get(name, []):
        column, number = (fitting(text, encoding) for text in pair)
        there = re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d])", flat)
        assert there or (column and re.search(rf"[:,] {re.escape(column)}(,| |$)", said)), (column, number, text)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_kept(name, width):
    text = plain(screen(name, width))
    check(text, name, width)
    kept = KEPT / f"{name}-{width}.txt"
    if not kept.exists():
        kept.write_text(text)
        pytest.fail(f"{kept} was not there and is written now: look at it")
    assert text == kept.read_text()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", SCREENS)
def test_colour_changes_no_character(name, width, monkeypatch):
    kept = plain(screen(name, width))
    terminal = {"force_terminal": True}
    coloured = screen(name, width, **terminal)
    assert plain(coloured).strip() == kept.strip() and (name == "doctor" or "\x1b[" in coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    bare = screen(name, width, **terminal)
    assert plain(bare).strip() == kept.strip() and not COLOUR.search(bare)
    monkeypatch.setenv("TERM", "dumb")
    dumb = screen(name, width, **terminal)
    assert plain(dumb).strip() == kept.strip() and "\x1b" not in dumb


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_utf_8(name, width, encoding):
    text = plain(screen(name, width, encoding))
    text.encode(encoding)
    assert "\\x" not in text and "\\u" not in text  # the program's own characters have stand-ins
    utf = plain(screen(name, width))
    assert text.count("\n") == utf.count("\n")
    check(text, name, width, encoding)


def test_some_numbers_are_looked_for():
    """The check itself: a number that is cut, or a column that is missing without a word, is seen."""
    whole = plain(screen("complexity-one", 80))
    for broken in (whole.replace("23,528,522", "23,52…"), whole.replace("4.0871567", "4.08715"), whole + "x" * 81):
        with pytest.raises(AssertionError):
            check(broken, "complexity-one", 80)


def test_a_file_gets_all_columns(monkeypatch, capsys):
    """Where nobody reads at a terminal nothing is left out, unless COLUMNS says how wide it is."""
    results().print(tables.class_table(scores(["a" * 300, "b"])))
    messages().say("x " * 500)
    out, err = capsys.readouterr()
    assert "a" * 300 in out and "images" in out and err == "x " * 500 + "\n"
    monkeypatch.setenv("COLUMNS", "40")
    results().print(tables.class_table(scores()))
    assert "a wider terminal also shows: recall" in capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 30, 40])
def test_very_narrow(width):
    """Few columns are left; what cannot be left out is stacked, and a number stays whole."""
    for name in ("eval", "predict", "doctor"):
        text = plain(screen(name, width))
        assert max(map(len, text.splitlines())) <= width
        for column, number in NUMBERS[name]:
            if len(number) < 14 and " " not in number and column != "images":
                assert number in text or column in text.split("also shows:")[-1], (number, text)


def test_of_many_classes_the_matrix_is_no_screen():
    for name, width in (("eval-100", 120), ("eval", 60)):
        assert tables.LEFT_OUT in " ".join(screen(name, width).split())
    many = scores([f"a class with a long name {index}" for index in range(12)])
    console = Terminal(file=io.StringIO(), width=110)
    table = tables.confusion_table(many, console)
    assert [column.name for column in table.columns[1:3]] == ["0", "1"] and table.rows[3][0].startswith(" 3 a class")
    assert tables.confusion_table(scores(), Terminal(file=io.StringIO(), width=80)).columns[1].name == CIFAR[0]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_bar_keeps_its_numbers(width):
    run, _ = training(validation=False)
    console = Terminal(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    shown = watcher.TerminalWatcher(console)
    shown.start(run, SimpleNamespace(path="runs/x"))
    shown.looked = 0.0
    shown.step(run)
    console.file = io.StringIO()
    console.print(shown.bar.get_renderable())
    (line,) = console.file.getvalue().splitlines()
    assert cell_len(line) <= width and "…" not in line and "epoch 8/200" in line and "  4%" in line
    assert ("loss 1.2345" in line) == (width >= 60) and ("640,000 img/s" in line) == (width >= 80)


def test_a_terminal_that_changes_its_width():
    run, (record, _) = training(validation=True)
    console = Terminal(file=io.StringIO(), width=120)
    shown = watcher.TerminalWatcher(console)
    shown.start(run, SimpleNamespace(path="runs/x"))
    shown.table.head()
    console.file = io.StringIO()
    console.width = 60
    shown.epoch(run, record)
    shown.epoch(run, record)
    said, head, *lines = console.file.getvalue().splitlines()
    assert (
        said == "a wider terminal also shows: lr, val loss, img/s, time"
        and head.startswith("epoch")
        and len(lines) == 2
    )


def test_nothing_is_lost_in_any_table():
    """At every width each cell is whole on the screen, or its column is named as missing."""
    columns = [Column("name", number=False), Column("first", 2), Column("second", 1), Column("third")]
    rows = [(f"row{index}", f"{index}1111111", f"{index}222222222", f"{index}33333") for index in range(1, 5)]
    for count in (1, 2, 4):
        for width in range(14, 70):
            console = Terminal(file=io.StringIO(), width=width)
            console.print(Table(columns, rows[:count], "a title"))
            text = console.file.getvalue()
            assert max(map(len, text.splitlines())) <= width
            for row in rows[:count]:
                for column, cell in zip(columns, row, strict=True):
                    assert cell in text or (column.drop and column.name in text.split("shows:")[1]), (width, text)


def test_facts_wrap_below_themselves():
    console = Terminal(file=io.StringIO(), width=30)
    console.print(Facts([("name", "one two three four five six seven"), ("version", "2.14.1-of-a-long-name")]))
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "name     one two three four", "         five six seven", "version  2.14.1-of-a-long-name",
    ]  # fmt: skip


def test_one_and_many():
    assert [plural(n, w) for n, w in ((1, "epoch"), (0, "epoch"), (1797, "image"), (1, "class"), (2, "class"))] == [
        "1 epoch", "0 epochs", "1,797 images", "1 class", "2 classes",
    ]  # fmt: skip
