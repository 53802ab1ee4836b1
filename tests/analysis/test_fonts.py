"""Texts that matplotlib's own font lacks: a font of the machine that has them, else one line that says what to install."""

import dataclasses
import re
import unicodedata
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from PIL import Image

from cifarnet.analysis.plots import confusion, fonts, text
from cifarnet.analysis.plots.fonts import FONT, fonts_for, to_install
from cifarnet.analysis.plots.style import drawing, our_style

NOWHERE = "\U0010fffd"  # of private use: it has no name, and no font holds it


@pytest.fixture(autouse=True)
def anew():
    """What was found in one test is not known in the next."""

    def forget():
        for known in (fonts._with_others, fonts.add_new_fonts, text.warn_once):
            known.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def other():
    """A letter that DejaVu Sans lacks and STIXGeneral has, and the latter's entry; both come with matplotlib."""
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.style == "normal" and entry.weight == 400]
    own, stix = (next(one for one in entries if one.name == name) for name in (FONT, "STIXGeneral"))
    lacking = set(FT2Font(stix.fname).get_charmap()) - set(FT2Font(own.fname).get_charmap())
    return next(letter for letter in map(chr, sorted(lacking)) if unicodedata.category(letter) in ("Lu", "Ll")), stix


@pytest.fixture
def only(monkeypatch):
    """Lets matplotlib know these fonts alone besides its own, of which some are for boxes."""

    def call(*entries, system=()):
        listed = [one for one in font_manager.fontManager.ttflist if one.name.startswith((FONT, "Last Resort"))]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", [*listed, *entries])
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(path) for path in system])
        font_manager.fontManager._findfont_cached.cache_clear()

    yield call
    monkeypatch.undo()
    font_manager.fontManager._findfont_cached.cache_clear()


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def test_a_letter_is_drawn_with_the_font_that_has_it(other, only, tmp_path):
    letter, entry = other
    only(entry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawing(tmp_path / "ours.png", 2, 1) as figure:
            figure.text(0.5, 0.5, f"a{letter}", fontsize=30)
    with our_style():
        plain = Figure(figsize=(2, 1), layout="constrained")
        plain.text(0.5, 0.5, f"a{letter}", fontsize=30, fontfamily=[FONT, entry.name])
        plain.savefig(tmp_path / "matplotlib.png")
    assert np.array_equal(pixels(tmp_path / "ours.png"), pixels(tmp_path / "matplotlib.png"))
    only()
    fonts._with_others.cache_clear()
    with pytest.warns(UserWarning, match="no font here has"), drawing(tmp_path / "box.png", 2, 1) as figure:
        figure.text(0.5, 0.5, f"a{letter}", fontsize=30)
    assert not np.array_equal(pixels(tmp_path / "ours.png"), pixels(tmp_path / "box.png"))


def test_titles_and_names_of_classes_ask_for_it(other, only, tmp_path):
    letter, entry = other
    only(entry)
    path = confusion.draw({"": np.eye(2) + 1}, [f"{letter}a", "b"], tmp_path / "x.svg", letter)
    found = [line for line in path.read_text().split("\n") if f">{letter}" in line]
    assert len(found) == 3  # the title, a row, a column
    assert all(re.search(f"font-family: '?{FONT}'?, '?{entry.name}", line) for line in found)


def test_every_pass_of_the_layout_is_made_with_the_fonts_of_the_figure(other, only, tmp_path, monkeypatch):
    letter, entry = other
    only(entry)
    families, execute = [], ConstrainedLayoutEngine.execute

    def note(engine, figure):
        families.append({name for one in figure.findobj(Text) if letter in one.get_text() for name in one.get_family()})
        execute(engine, figure)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", note)
    confusion.draw({"": np.eye(2) + 1}, [f"{letter}a", "b"], tmp_path / "x.png")
    assert len(families) > 1 and families == [{FONT, entry.name}] * len(families)


def test_what_no_font_has_is_said_in_one_line_with_what_to_install(only, tmp_path, recwarn):
    only()
    for name in ("one.png", "two.pdf"):  # a training draws many
        with drawing(tmp_path / name, 2, 1) as figure:
            figure.text(0.1, 0.5, "中文 กข 中")
    assert [str(one.message) for one in recwarn] == [
        "figures: no font here has กข中文: boxes stand for that; install Noto Sans Thai and Noto Sans CJK, or see an .svg, "
        "which keeps the text"
    ]


def test_texts_that_the_own_font_has_ask_for_no_other(monkeypatch):
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: pytest.fail("fonts were looked for"))
    assert fonts_for(["Łódź ñ ß", "Привет\nمرحبا ≤ θ"]) == ((FONT,), "")


def test_a_font_that_was_installed_since_matplotlib_looked_is_found(other, only):
    letter, entry = other
    only(system=[entry.fname])
    assert fonts_for([letter]).families == (FONT, entry.name)


def test_fonts_that_are_gone_or_broken_or_for_boxes_are_passed_over(other, only, tmp_path):
    letter, entry = other
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0 no font")
    gone = dataclasses.replace(entry, fname=str(tmp_path / "gone.ttf"), name="Noto Sans")
    only(gone, entry, system=[tmp_path / "broken.ttf"])
    assert fonts_for([letter, NOWHERE]) == ((FONT, entry.name), NOWHERE)


@pytest.mark.parametrize(
    ("written", "first"),
    [("猫犬", "Noto Sans CJK SC"), ("猫いぬ", "Noto Sans CJK JP"), ("고양이", "Noto Sans CJK KR")],
)
def test_of_fonts_that_hold_as_much_the_plain_one_of_the_region_is_taken(written, first):
    names = (
        "AR PL UMing CN",
        "Noto Serif CJK SC",
        "Noto Sans Mono CJK SC",
        *(f"Noto Sans CJK {end}" for end in ("JP", "KR", "SC", "TC")),
    )
    entries = [SimpleNamespace(name=name, weight=weight) for name in names for weight in (700, 400)]
    best = min(entries, key=lambda entry: fonts._dislike(entry, frozenset(written)))
    assert (best.name, best.weight) == (first, 400)


# Names of Google's Noto families, https://fonts.google.com/noto
@pytest.mark.parametrize(
    ("letter", "font"),
    [("中", "Noto Sans CJK"), ("か", "Noto Sans CJK"), ("한", "Noto Sans CJK"), ("。", "Noto Sans CJK"), ("ह", "Noto Sans Devanagari"),
     ("ก", "Noto Sans Thai"), ("ع", "Noto Sans Arabic"), ("አ", "Noto Sans Ethiopic"), ("🦀", "Noto Emoji or Noto Sans Symbols"),
     (NOWHERE, "")],
)  # fmt: skip
def test_the_font_to_install(letter, font):
    assert to_install(letter) == font


def test_chinese_is_drawn_where_a_font_of_it_is_installed(tmp_path):
    found = fonts_for(["猫"])
    if found.missing:
        pytest.skip("no Chinese font here: apt install fonts-noto-cjk")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("x.png", "x.pdf"):
            with drawing(tmp_path / name, 2, 1) as figure:
                figure.text(0.1, 0.5, "猫")
