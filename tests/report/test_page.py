"""The file page.py, which says what a page must show."""

import textwrap

import pytest

import allconv_resnet.report
from allconv_resnet.errors import BadInput
from allconv_resnet.report import Claim, Page, Section, Training, read_page, write_report

TRAINING = Training("digits", "The digits.", "python train.py")


def test_a_directory_may_have_no_page(tmp_path):
    assert read_page(tmp_path) is None


def test_the_example_of_the_documentation_is_a_page(tmp_path):
    example = allconv_resnet.report.__doc__.partition("Example:\n")[2]
    (tmp_path / "page.py").write_text(textwrap.dedent(example))
    page = read_page(tmp_path)
    assert page.names() == ["slow", "fast"]
    text = write_report(tmp_path, page).read_text()
    assert text.index("# My runs") < text.index("## Learning rates") < text.index("## Claims")


@pytest.mark.parametrize(
    "source, received",
    [
        ("PAGES = 1", "PAGE=None"),
        ("PAGE = 1", "PAGE=1"),
        ("PAGE = Page(", "SyntaxError: .*never closed"),
        ("import sys; sys.exit()", "SystemExit: "),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_page_that_cannot_be_used_is_refused(tmp_path, source, received):
    (tmp_path / "page.py").write_text(source)
    with pytest.raises(BadInput, match=rf"Expected .*page.py to define PAGE, .* Received: {received}"):
        read_page(tmp_path)


def test_a_page_checks_its_names():
    with pytest.raises(BadInput, match="Received: digits more than once"):
        Page("", (Section("One", "", (TRAINING,)), Section("Two", "", (TRAINING,))))
    with pytest.raises(BadInput, match=r"Received: 'Less\.' about 'other'"):
        Page("", (Section("One", "", (TRAINING,)),), (Claim("Less.", "asked here", "digits", "other"),))


def test_a_claim_is_about_test_or_train():
    trainings = tuple(Training(name, "", "") for name in "ab")
    with pytest.raises(BadInput, match="'typo' about 'tset'"):
        Page("", (Section("s", "", trainings),), claims=(Claim("typo", "me", "a", "b", split="tset"),))
