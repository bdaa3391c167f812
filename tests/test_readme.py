"""The README: its links lead somewhere, and its test command is that of CI."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_pages_it_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for link in {part.partition(")")[0] for part in text.split("](")[1:]}:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_ci_runs_the_command_of_the_readme() -> None:
    assert "uv run pytest  " in (ROOT / "README.md").read_text()
    assert "\nuv run pytest\n" in (ROOT / ".ci/run").read_text()
