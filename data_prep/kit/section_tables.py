"""Tables of the headers of reports, and of reports of MIMIC-CXR that need exceptions.

The facts come from codes/prior/data/pretrain/text_process.py of the release, which took them from
the MIT-LCP/mimic-cxr section parser.
"""

# Canonical section -> spellings of its header, in lower case.
HEADERS = {
    "preamble": ("preamble",),
    "impression": (
        "impression",
        "conclusion",
        "findings and impression",
        "findings/impression",
        "findings/ impression",
        "impresson",
        "imprression",
        "imoression",
        "impressoin",
        "imprssion",
        "impresion",
        "imperssion",
        "mpression",
        "impession",
    ),
    "findings": (
        "findings",
        "finding",
        "chest, two views",
        "reference findings",
        "findins",
        "findindgs",
        "findgings",
        "findngs",
        "findnings",
        "finidngs",
    ),
    "indication": (
        "indication",
        "reason for examination",
        "reason for exam",
        "clinical indication",
        "idication",
    ),
    "history": (
        "history",
        "clinical history",
        "clinical information",
        "patient history",
        "pfi",
    ),
    "comparison": (
        "comparison",
        "comparisons",
        "reference exam",
        "comparison exam",
        "comparison film",
        "comparision",
        "comparsion",
        "comparrison",
        "comparisions",
    ),
    "examination": ("examination", "exam", "type of examination"),
    "technique": ("technique",),
    "notification": ("notification",),
    "recommendations": ("recommendations", "recommendation(s)", "recommendation"),
    "addendum": ("addendum",),
    "date": ("date",),
    "comment": ("comment",),
    "wet read": ("wet read", "wetread"),
}

# The only header that the two modes read differently: an INDICATION without its first letter.
TRUNCATED_INDICATION = "ndication"

# Headers that only the paper mode knows.
EXTRA_HEADERS = {
    "indication": (TRUNCATED_INDICATION, "clinical indications", "indications", "reason for study"),
    "impression": (
        "impressions",
        "impression(s)",
        "impression and recommendation",
        "conclusions",
        "conclusion(s)",
        "opinion",
        "imp",
    ),
    "examination": ("study", "procedure", "exam type"),
    "technique": ("techniques",),
    "notification": ("notifications",),
    "comparison": ("compared to", "comparison study", "comparison studies"),
    # Text after these is about the report, not about the patient (CheXpert Plus has the first).
    "end of impression": (
        "end of impression",
        "end of report",
        "accession number",
        "dictated by",
        "electronically signed by",
        "interpreted by",
        "reported by",
        "reviewed by",
        "signed by",
        "transcribed by",
        "verified by",
    ),
}

# Other phrases that mean the impression, at the beginning of a line and in any case, as a pattern.
IMPRESSION_PHRASE = (
    r"(?:(?:final|overall|radiographic|radiological|radiologic|radiologist'?s|imaging|diagnostic"
    r"|general|main|preliminary|primary|brief) )*(?:impressions?|conclusions?)"
    r"(?: ?(?:and|or|&|/|,|-) ?(?:plan|recommendations?|recommendation\(s\)|conclusions?|summary"
    r"|discussion|comments?|diagnosis|assessment|advice|opinion|interpretation|impressions?"
    r"|findings?))*(?: ?\(?(?:final|preliminary|overall)\)?)?(?: ?#? ?\d{1,2})?"
)

# Headers that mean the impression if they follow findings; before findings they may be about the
# reason for the examination.
SUMMARIES = frozenset(
    (
        "summary",
        "interpretation",
        "diagnosis",
        "diagnoses",
        "assessment",
        "assessment and plan",
        "assessment/plan",
        "assessment & plan",
    )
)

# A header that contains one of these words means that section; the first that fits wins.
MAIN_WORDS = ("impression", "findings", "history", "comparison", "addendum")

# A header that contains one of these phrases titles a description of the whole study.
VIEW_PHRASES = (
    "chest",
    "portable",
    "pa and lateral",
    "lateral and pa",
    "ap and lateral",
    "lateral and ap",
    "frontal and",
    "two views",
    "frontal view",
    "pa view",
    "ap view",
    "one view",
    "lateral view",
    "bone window",
    "frontal upright",
    "frontal semi-upright",
    "ribs",
    "pa and lat",
)

# Reports of MIMIC-CXR whose findings are under another header: study -> that header.
FINDINGS_UNDER = {
    50913680: "recommendations",
    59363654: "examination",
    59279892: "technique",
    59768032: "recommendations",
    57936451: "indication",
    50058765: "indication",
    53356173: "examination",
    53202765: "technique",
    50808053: "technique",
    51966317: "indication",
    50743547: "examination",
    56451190: "note",
    59067458: "recommendations",
    59215320: "examination",
    55124749: "indication",
    54365831: "indication",
    59087630: "recommendations",
    58157373: "recommendations",
    56482935: "recommendations",
    58375018: "recommendations",
    54654948: "indication",
    55157853: "examination",
    51491012: "history",
}

# Reports whose findings are a range of characters; (0, 0) if the report has no findings.
FINDINGS_AT = {
    50525523: (201, 349),
    57564132: (233, 554),
    59982525: (313, 717),
    53488209: (149, 475),
    54875119: (234, 988),
    50196495: (59, 399),
    56579911: (59, 218),
    52648681: (292, 631),
    59889364: (172, 453),
    53514462: (73, 377),
    59505494: (59, 450),
    53182247: (59, 412),
    51410602: (47, 320),
    56412866: (522, 822),
    54986978: (59, 306),
    59003148: (262, 505),
    57150433: (61, 394),
    56760320: (219, 457),
    59562049: (158, 348),
    52674888: (145, 296),
    55258338: (192, 568),
    59330497: (140, 655),
    52119491: (179, 454),
    58235663: (0, 0),
    50798377: (0, 0),
    54168089: (0, 0),
    53071062: (0, 0),
    56724958: (0, 0),
    54231141: (0, 0),
    53607029: (0, 0),
    52035334: (0, 0),
}
