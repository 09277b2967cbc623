"""A newcomer finds the answers in README and docs by text search."""

import pytest
import yaml

from tests.docs.pages import PAGES, READMES, ROOT, name, sections

QUESTIONS = yaml.safe_load((ROOT / "tests/docs/questions.yaml").read_text())

# A reader looks at so many places that a search finds.
LOOKED_AT = 3


def found(words):
    """The sections that hold all the words."""
    wanted = [str(word).lower() for word in words]
    return [
        section
        for page in PAGES
        if page != READMES[1]  # the same in Chinese
        for section in sections(page)
        if all(word in " ".join(section.text.lower().split()) for word in wanted)
    ]


def test_there_are_ten_questions():
    assert len({entry["question"] for entry in QUESTIONS}) == 10


@pytest.mark.parametrize("entry", QUESTIONS, ids=lambda entry: entry["question"])
def test_a_search_finds_the_answer(entry):
    places = found(entry["search"])
    assert 1 <= len(places) <= LOOKED_AT, [f"{name(s.page)}#{s.anchor}" for s in places]
    answers = [s for s in places if name(s.page) == entry["page"]]
    assert any(entry["answer"] in " ".join(s.text.split()) for s in answers)
