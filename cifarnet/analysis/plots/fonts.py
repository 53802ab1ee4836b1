"""Fonts for what matplotlib's own lacks: Chinese, Japanese, Korean, Hindi, Thai … are drawn with fonts of this machine."""

import functools
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from cifarnet.analysis.plots.mpl import FontProperties, FT2Font, findfont, findSystemFonts, font_manager, get_font

FONT = "DejaVu Sans"  # comes with matplotlib
# Of fonts that hold as much: the plain ones that systems bring along, by how their names begin.
LIKED = (
    "Noto Sans CJK", "Noto Sans", "Source Han Sans", "PingFang", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic",
    "Meiryo", "MS Gothic", "Malgun Gothic", "Apple SD Gothic Neo", "WenQuanYi", "Nirmala", "Leelawadee", "Segoe UI",
)  # fmt: skip
BOXES = ("Last Resort", "LastResort", ".LastResort", "Adobe Blank", "Unicode BMP Fallback")  # hold all, show nothing
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")


class Fonts(NamedTuple):
    """Families of fonts in the order in which they are asked for a character; and the characters that none of them has."""

    families: tuple[str, ...]
    missing: str


def fonts_for(texts: Iterable[str]) -> Fonts:
    """`FONT`, and where it lacks characters of the texts, installed fonts that have them: as few as do, the best first."""
    return _with_others(frozenset("".join(texts)) - {"\n"} - _own())


@functools.cache
def _own() -> frozenset[str]:
    return frozenset(map(chr, get_font(findfont(FontProperties(family=FONT))).get_charmap()))


@functools.cache
def _with_others(lacking: frozenset[str]) -> Fonts:
    families, missing = [FONT], set(lacking)
    if missing:
        add_new_fonts()
    held = [(entry, held_by(entry, lacking)) for entry in font_manager.fontManager.ttflist] if missing else []
    while found := [(entry, holds & missing) for entry, holds in held if holds & missing]:
        best, holds = min(found, key=lambda one: (-len(one[1]), *_dislike(one[0], lacking)))
        families.append(best.name)
        missing -= holds
    return Fonts(tuple(families), "".join(sorted(missing)))


@functools.cache
def add_new_fonts() -> None:
    """Makes fonts known that were installed since matplotlib last looked: it keeps a list on the disk."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except Exception:  # whatever a broken file makes of FreeType: a font less
            continue


def held_by(entry: Any, characters: frozenset[str]) -> frozenset[str]:
    """The characters that a font of matplotlib's list has and can draw upright."""
    if entry.style != "normal" or entry.name.startswith(BOXES):
        return frozenset()
    face = getattr(entry, "index", 0)  # before matplotlib 3.11 the first of a file alone is listed
    chosen: Any = {"face_index": face} if face else {}
    try:
        font = FT2Font(entry.fname, **chosen)
    except (OSError, RuntimeError):  # removed since, or no font
        return frozenset()
    # A font of pictures, as emoji in colour are, has no outlines.
    return frozenset(one for one in characters if font.scalable and font.get_char_index(ord(one)))


def _dislike(entry: Any, characters: frozenset[str]) -> tuple[Any, ...]:
    """Smaller for a font that is taken first. One ideograph has other forms in Japan, Korea and China: kana or hangul decide."""
    scripts = {script_of(one) for one in characters}
    region = "JP" if scripts & {"HIRAGANA", "KATAKANA"} else "KR" if "HANGUL" in scripts else "SC"
    liked = next((place for place, name in enumerate(LIKED) if entry.name.startswith(name)), len(LIKED))
    return "Mono" in entry.name, liked, not entry.name.endswith(region), abs(_weight(entry) - 400), entry.name


def _weight(entry: Any) -> int:
    return entry.weight if isinstance(entry.weight, int) else 400


def script_of(character: str) -> str:
    """The first word of its name in Unicode: THAI, CJK, HANGUL; "" where it has none."""
    return unicodedata.name(character, "").split(" ")[0]


def to_install(character: str) -> str:
    """A font that has the character, as far as its name tells; "" of one that no font can be expected to have."""
    script = script_of(character)
    if script in EAST_ASIAN:
        return "Noto Sans CJK"
    kind = unicodedata.category(character)[0]
    if kind in "LM" and script not in ("", "LATIN", "GREEK", "CYRILLIC"):
        return f"Noto Sans {script.title()}"
    return {"L": "Noto Sans", "S": "Noto Emoji or Noto Sans Symbols"}.get(kind, "")
