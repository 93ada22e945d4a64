"""A run, what can be shown of one, and a reader of the page."""

import html.parser

import numpy as np

from prior_jax.report.examples import (
    AttentionExample,
    BankUsage,
    Prototype,
    ReconstructionExample,
    RetrievalExample,
    RetrievedReport,
    RunInfo,
)

RUN = RunInfo(
    name="phantom",
    settings={"model": {"embed_dim": 8, "depths": (1, 2)}, "nothing": None},
    versions={"jax": "0.10.2"},
    datasets={"nih": {"train": {"studies": 1200, "images": 1300}, "test": {"studies": 100}}},
)


class Reader(html.parser.HTMLParser):
    """Collects addresses, texts and pictures without words; checks that tags close."""

    VOID = frozenset(("meta", "img", "br", "source"))

    def __init__(self, text):
        super().__init__()
        self.addresses, self.unnamed, self.texts, self.open, self.tags = [], [], [], [], set()
        self.ids = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attributes = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [attributes[n] for n in ("src", "href", "srcset") if n in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img" and not attributes.get("alt"):
            self.unnamed.append(attributes)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def image(size=16):
    return np.random.default_rng(0).random((size, size)).astype(np.float32)


def examples(text="There is a small effusion."):
    return {
        "attention": [
            AttentionExample(
                title=text,
                image=image(),
                attention=np.eye(2, 4),
                grid=(2, 2),
                spacing=8.0,
                texts=(text, "No edema."),
            )
        ],
        "retrieval": [
            RetrievalExample(
                title=text,
                image=image(),
                report=text,
                classes=(text,),
                retrieved=(
                    RetrievedReport(text=text, score=0.9, match="pair"),
                    RetrievedReport(text="Other.", score=0.1, match="none"),
                ),
            )
        ],
        "reconstructions": [
            ReconstructionExample(title=text, image=image(), shown=None, reconstruction=image())
        ],
        "bank": BankUsage(
            counts=np.array([4.0, 0.0, 4.0]), prototypes=(Prototype(index=2, sentences=(text,)),)
        ),
    }
