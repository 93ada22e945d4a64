"""A report written out in the styles in which real ones are met."""

import re
import textwrap

ORDER = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")


def _lines(sections, *, upper, wrap=False, double=False):
    """MIMIC-CXR's layout: a header begins a line."""
    title = "EXAMINATION:  CHEST (PA AND LAT)" if upper else "Examination:  Chest (PA and lat)"
    report = f"                                 FINAL REPORT\n {title}\n \n"
    for name in ORDER:
        if name in sections:
            body = sections[name]
            if wrap:
                body = "\n ".join(textwrap.wrap(body, 78, break_on_hyphens=False))
            if double:
                body = re.sub(r"\. ", ".  ", body)
            report += f" {name if upper else name.title()}:  {body}\n \n"
    return report


def _one_line(sections, *, upper):
    """CheXpert Plus's layout: everything on one line."""
    return " ".join(
        f"{name if upper else name.title()}: {sections[name]}" for name in ORDER if name in sections
    )


STYLES = {
    "capitals, own lines": lambda sections: _lines(sections, upper=True),
    "mixed case, own lines": lambda sections: _lines(sections, upper=False),
    "capitals, one line": lambda sections: _one_line(sections, upper=True),
    "mixed case, one line": lambda sections: _one_line(sections, upper=False),
    "mixed case, one line, wrapped": lambda sections: "\n".join(
        textwrap.wrap(_one_line(sections, upper=False), 60, break_on_hyphens=False)
    ),
    "wrapped": lambda sections: _lines(sections, upper=True, wrap=True),
    "doubled blanks": lambda sections: _lines(sections, upper=False, double=True),
}
