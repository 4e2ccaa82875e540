"""What was measured, at the end: docs/families.md has it from here."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    lines = []
    for report in terminalreporter.stats.get("passed", []):
        if report.when == "call" and report.user_properties:
            _, _, case = report.nodeid.rpartition("::")
            case = case.partition("[")[2].rstrip("]") or case
            numbers = "  ".join(f"{name} {value:.1e}" for name, value in report.user_properties)
            lines.append(f"{case:24s}  {numbers}")
    if lines:
        terminalreporter.section("largest differences")
        terminalreporter.line("\n".join(sorted(lines)))
