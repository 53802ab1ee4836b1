"""Names that some format takes for something else: what a class folder, a run folder or a title may be called."""

HOSTILE = (
    "=1+1", "@SUM(1)", "+1", "-1", "-1+2", "=HYPERLINK(\"http://x\",\"y\")", "a,b;\"c\"",
    "](x)", "![x](y)", "[a]: http://x", "<script>alert(1)</script>", "</text>", "&lt;", "<!-- x", "https://x.org", "www.x.org",
    "\\input{x}", "\\$5", "$x^2$", "$\\frac", "_a_", "_", "*b*", "**c**", "~~d~~", "|", "a|b", "`code`", "```",
    "# e", "- f", "1. g", "2) g", "3.", "> h", "[1cm]", "--i", "{}%s%", "^~#&_{}", "''j\"\"", "<<k>>",
    "l\nm", "n\r\no", "p\tq", "\x00", "r\x1b[31ms", "t\u202eu", "\u2066v", "w\udc80", "\ud800x", "\ufeffy", "\u2028z",
    "a" * 300, "W" * 300, "中" * 300, "😀🦀👩\u200d👧", "中文", "مرحبا بالعالم", "e\u0301\u0323", "Łódź ñ ß œ", "  ",
)  # fmt: skip
