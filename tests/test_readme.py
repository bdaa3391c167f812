"""The README: what it shows is what is printed."""

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_examples_print_what_the_readme_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # Fences end an example's output as an empty line does.
    text = (ROOT / "README.md").read_text().replace("```", "")
    example = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(example.examples) >= 8
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert outcome.failed == 0


def test_the_pages_it_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for link in {part.partition(")")[0] for part in text.split("](")[1:]}:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_ci_runs_the_command_of_the_readme() -> None:
    assert "uv run pytest  " in (ROOT / "README.md").read_text()
    assert "\nuv run pytest\n" in (ROOT / ".ci/run").read_text()
