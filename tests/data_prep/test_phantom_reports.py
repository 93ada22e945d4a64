"""The phantom's cases and texts, nothing drawn: the words say what the case holds."""

import collections
import re

import pytest

from data_prep.phantom import cases, phrases, report_text

SHARES = cases.SplitShares(train=0.75, validate=0.1, test=0.15)
SEED = 11
STUDIES = 1500

CORRECT = {wrong: right for right, wrong in phrases.MISSPELLINGS.items()}


@pytest.fixture(scope="module")
def drawn_cases():
    studies = [cases.sample_study(SEED, number, SHARES) for number in range(STUDIES)]
    return [(study, report_text.write_report(SEED, study)) for study in studies]


def _spelled(text):
    for wrong, right in CORRECT.items():
        text = text.replace(wrong, right)
    return text.lower()


def test_each_label_is_common_enough_to_learn_and_to_test(drawn_cases):
    positive = collections.Counter()
    for _, report in drawn_cases:
        positive.update(label for label, value in report.labels.items() if value == 1)
    for kind in cases.KINDS:
        assert 0.09 < positive[kind] / STUDIES < 0.21, kind
    assert 0.26 < positive["No Finding"] / STUDIES < 0.36


def test_every_label_agrees_with_the_chest(drawn_cases):
    doubted = 0
    for study, report in drawn_cases:
        drawn = {finding.kind: finding.hedged for finding in study.findings}
        for kind in cases.KINDS:
            value = report.labels.get(kind)
            if kind not in drawn:
                assert value in (None, 0)
            elif report.layout != "headless":
                assert value == (-1 if drawn[kind] else 1), (kind, report.text)
                doubted += value == -1
    assert doubted > 20


def test_no_finding_means_no_drawn_finding(drawn_cases):
    for study, report in drawn_cases:
        assert (report.labels.get("No Finding") == 1) == (
            not study.findings and report.layout != "headless"
        )


def test_every_finding_is_told_on_its_own_side(drawn_cases):
    for study, report in drawn_cases:
        told = set()
        for sentence in report.sentences:
            told.update(sentence.about)
            sides = {side for _, side in sentence.about}
            text = set(re.findall(r"left|right", _spelled(sentence.text)))
            if sides in ({"left"}, {"right"}):
                assert text == sides, sentence
        assert told == {(finding.kind, finding.side) for finding in study.findings}


def test_sizes_and_zones_in_the_text_are_those_of_the_case(drawn_cases):
    zones = {"upper": "upper", "mid": "mid", "lower": "lower|base|basilar"}
    measured = 0
    for study, report in drawn_cases:
        for sentence in report.sentences:
            text = _spelled(sentence.text)
            for kind, side in sentence.about:
                finding = next(f for f in study.of(kind) if f.side == side)
                if finding.zone in zones and "bibasilar" not in text:
                    assert re.search(zones[finding.zone], text), sentence
                if found := re.search(r"(\d+) mm", text):
                    assert int(found[1]) == round(finding.extent)
                    measured += 1
                if found := re.search(r"(\d+\.\d) cm", text):
                    assert found[1] == f"{finding.extent / 10:.1f}"
                    measured += 1
                words = phrases.SIZE_WORDS[kind]
                others = {w for size, row in words.items() if size != finding.size for w in row}
                if len({f.size for f in study.of(kind)}) == 1 and kind == "Pleural Effusion":
                    assert not others & set(re.findall(r"[a-z-]+", text)), sentence
    assert measured > 100


def test_the_larger_fluid_of_two_sides_is_told_on_its_side(drawn_cases):
    seen = 0
    words = phrases.SIZE_WORDS["Pleural Effusion"]
    for study, report in drawn_cases:
        fluid = {f.side: f.size for f in study.of("Pleural Effusion")}
        if len(set(fluid.values())) < 2:
            continue
        for sentence in report.sentences:
            text = _spelled(sentence.text)
            if ("Pleural Effusion", "left") in sentence.about and "on the" in text:
                for side in ("left", "right"):
                    size = re.search(rf"(\S+) on the {side}", text)[1]
                    assert size in words[fluid[side]], sentence
                seen += 1
    assert seen > 5


def test_denied_findings_are_not_drawn(drawn_cases):
    for study, report in drawn_cases:
        for sentence in report.sentences:
            for label, value in sentence.labels:
                assert value != 0 or not study.of(label) if label in cases.KINDS else True
            if "lungs are" in sentence.text:
                assert {f.kind for f in study.findings} <= {"Cardiomegaly"}


def test_the_text_file_holds_the_sentences_in_order(drawn_cases):
    for _, report in drawn_cases[:400]:
        flat = " ".join(report.text.split())
        place = 0
        for sentence in report.sentences:
            found = flat.find(" ".join(sentence.text.split()), place)
            assert found >= 0, (sentence.text, report.text)
            place = found + 1
        assert report.text.splitlines()[0].strip() == "FINAL REPORT"
        assert max(len(line) for line in report.text.splitlines()) <= 84


def test_layouts_give_the_filters_work(drawn_cases):
    layouts = collections.Counter(report.layout for _, report in drawn_cases)
    assert set(layouts) == {"both", "impression", "findings", "joined", "short", "headless"}
    assert 0.7 < layouts["both"] / STUDIES < 0.95
    lengths = [len(report.sentences) for _, report in drawn_cases]
    assert 0.02 < sum(n < 4 for n in lengths) / STUDIES < 0.2
    assert 5 < sum(lengths) / STUDIES < 10
    texts = " ".join(report.text for _, report in drawn_cases)
    for trait in ("___", "  ", " 1.  ", "p.m.", "approx.", " cm", "FIDNINGS:", "HISTORY:"):
        assert trait in texts


def test_a_label_that_is_once_certain_stays_certain():
    def sentence(value):
        return report_text.Sentence(
            text="", section="findings", about=(), labels=(("Edema", value),)
        )

    merge = report_text.merge_labels
    for values, merged in (((0, -1), -1), ((-1, 0), -1), ((-1, 1), 1), ((1, -1, 0), 1), ((0,), 0)):
        labels = merge([sentence(value) for value in values])
        assert labels["Edema"] == merged
        assert ("No Finding" in labels) == (merged == 0)


def test_ids_are_unique_and_patients_keep_one_split(drawn_cases):
    assert len({study.study_id for study, _ in drawn_cases}) == STUDIES
    splits = collections.defaultdict(set)
    visits = collections.Counter()
    for study, _ in drawn_cases:
        splits[study.patient.subject_id].add(study.patient)
        visits[study.patient.subject_id] += 1
    assert all(len(patients) == 1 for patients in splits.values())
    assert set(visits.values()) == {1, 2, 3}
    shares = collections.Counter(study.patient.split for study, _ in drawn_cases)
    assert abs(shares["train"] / STUDIES - 0.75) < 0.03
    assert abs(shares["test"] / STUDIES - 0.15) < 0.03
    assert {str(study.patient.subject_id)[:2] for study, _ in drawn_cases} == {
        str(n) for n in range(10, 20)
    }


def test_a_study_does_not_depend_on_the_others_but_on_the_seed():
    one = cases.sample_study(SEED, 77, SHARES)
    assert one == cases.sample_study(SEED, 77, SHARES)
    other = cases.sample_study(SEED + 1, 77, SHARES)
    assert one.dicom_ids != other.dicom_ids
