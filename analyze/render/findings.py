# SPDX-License-Identifier: GPL-2.0-only
"""Renders what stands out in a capture as text."""

from collections.abc import Sequence

from analyze.escape import escape_for_terminal, shell_word
from analyze.finding import Finding
from analyze.render.table import wrap_units
from analyze.units import format_counted

_MOST_IN_REPORT = 3


def findings_summary(findings: Sequence[Finding] | None, width: int) -> list[str]:
    """A line for each of the first three, or how to get them."""
    if findings is None:
        return ["what stands out: --findings (of so many I/Os it takes a while)"]
    if not findings:
        return []
    lines = ["stands out:"]
    for finding in findings[:_MOST_IN_REPORT]:
        lines += _wrapped(f"  {finding.text}", width)
    left_out = len(findings) - _MOST_IN_REPORT
    if left_out > 0:
        lines.append(f"  ({format_counted(left_out, 'more finding')}: --findings)")
    return lines


def findings_lines(findings: Sequence[Finding], width: int) -> list[str]:
    """Each with its id, how sure it is, and the options that select the rows that show it."""
    if not findings:
        return ["nothing stands out"]
    lines = []
    for finding in findings:
        lines += _wrapped(f"{finding.id} ({finding.confidence}): {finding.text}", width)
        lines.append(f"  rows: {' '.join(_options(finding))}")
    return lines


def _options(finding: Finding) -> list[str]:
    options = []
    if finding.begin_s is not None:
        options += ["-b", f"{finding.begin_s:.3f}"]
    if finding.end_s is not None:
        options += ["-e", f"{finding.end_s:.3f}"]
    return [*options, "--where", _quoted(finding.where)]


def _quoted(condition: str) -> str:
    """For a shell: a condition has quotes of its own."""
    return shell_word(condition) if set('"$`\\!') & set(condition) else f'"{condition}"'


def _wrapped(text: str, width: int) -> list[str]:
    return wrap_units(escape_for_terminal(text), width, subsequent_indent="    ")
