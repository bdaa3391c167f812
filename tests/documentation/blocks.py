"""The code blocks of a page of the documentation: found by a Markdown parser, and run in order."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]

# Comparison of shown output: `...` stands for anything.
CHECKER, OPTIONS = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Commands that change the machine or the repository; what they do is tested elsewhere.
NOT_RUN = ("pip install", "uv ")


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason` is the page's own word on why it is not executed."""

    page: Path
    # Lines of the page before the block's first.
    line: int
    language: str
    text: str
    reason: str | None


def pages() -> list[Path]:
    """Return every page of the documentation, the README among them."""
    others = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")]
    return [*others, *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, also those inside lists; directives of the site are none."""
    found, reason = [], None
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "html_block":
            match = re.fullmatch(r"<!-- not executed: (.+) -->\s*", token.content)
            reason = match[1] if match else None
        elif token.type == "fence" and not token.info.startswith("{"):
            assert token.map is not None
            found.append(Block(page, token.map[0] + 1, token.info.strip(), token.content, reason))
            reason = None
    return found


@dataclass
class Reader:
    """Somebody who types a page's blocks, one after the other, in the working directory.

    `typed` is put in the place of what a page can only show an example of: keys, addresses.
    """

    names: dict[str, Any]
    command: Callable[[list[str]], None]
    typed: Mapping[str, str]
    before: Callable[[Block], None] = lambda block: None

    def read(self, page: Path) -> dict[str, Any]:
        """Run all blocks of a page that can be executed; return the names that its Python code has set."""
        for block in blocks_of(page):
            if block.reason is None:
                self.before(block)
                self._run(block)
        return self.names

    def _run(self, block: Block) -> None:
        text = block.text
        for shown, here in self.typed.items():
            text = text.replace(shown, here)
        match block.language:
            case "python" if ">>> " in text:
                self._session(block, text)
            case "python":
                # Errors then show the page's own line.
                exec(compile("\n" * block.line + text, str(block.page), "exec"), self.names)
            case "console":
                self._console(block, text)
            case "yaml":
                Path("catalog.yaml").write_text(text)
            case "json":
                json.loads(text)
            case "ini":
                Path("credentials").write_text(text)
            case _:
                raise AssertionError(f"{block.page}:{block.line}: no way to run {block.language}")

    def _session(self, block: Block, text: str) -> None:
        example = doctest.DocTestParser().get_doctest(
            text, self.names, block.page.name, str(block.page), block.line
        )
        report = io.StringIO()
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        assert runner.run(example, out=report.write, clear_globs=False).failed == 0, report.getvalue()
        self.names.update(example.globs)

    def _console(self, block: Block, text: str) -> None:
        for entry in text.split("$ ")[1:] if text.startswith("$ ") else []:
            line, _, expected = entry.partition("\n")
            line = line.partition(" #")[0].strip()
            if line.startswith(NOT_RUN):
                continue
            first, *arguments = shlex.split(line)
            match first:
                case "export":
                    name, _, value = arguments[0].partition("=")
                    os.environ[name] = value
                case "unset":
                    del os.environ[arguments[0]]
                case "nwbzarr":
                    printed = io.StringIO()
                    with contextlib.redirect_stdout(printed):
                        self.command([first, *arguments])
                    shown = printed.getvalue().replace(str(Path.cwd()), "/data")
                    if expected.strip():
                        place = f"{block.page}:{block.line}: {line}\n{shown}"
                        assert CHECKER.check_output(_sizes(expected), _sizes(shown), OPTIONS), place
                case _:
                    raise AssertionError(f"{block.page}:{block.line}: cannot run {line}")


def _sizes(text: str) -> str:
    """Leave sizes and durations out, which differ from run to run."""
    return re.sub(r"[\d.,]+ (?=(?:[kMG]?B|s)\b)", "some ", text)


def run_command(arguments: list[str]) -> None:
    """Run `nwbzarr` in this process, which must exit with status 0; a check may find something."""
    from intake_nwbzarr.cli.main import main

    before, sys.argv = sys.argv, arguments
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    assert ended.value.code in ({0, 1} if arguments[1] == "check" else {None, 0}), arguments
