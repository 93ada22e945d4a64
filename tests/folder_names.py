"""Names that folders have had, for tests of every program that writes or reads one."""

GOOD = (
    " lead and trail ",
    'it\'s "quoted" `here`',
    "{x} {0..2} } (x) x]",
    "100% a%2Fb %20",
    "a#b @4 ~x $HOME !x ^x",
    "-x --config",
    "..x",
    "a,b;c&d=e+f|g<h>",
    "\u00fcml u\u0308 \u65e5\u672c",
    "a:b",
    "x" * 255,  # the longest that Linux knows
)
"""Every program works in a folder of such a name."""

UNREADABLE = (
    "[1]",
    "[!a]",
    "a[b",
    "a*b",
    "a?b",
    "a\\b",
    "gs:",
    "s3:",
    "a\nb",
    "a\tb",
    "x\udce4",
)
"""Orbax writes to such a folder what it cannot read again, so that programs refuse it."""
