from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run what a reader would run: in another process, and without coverage, which is slow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_the_quickstart_finds_the_records_of_bulk_operations_equal_to_those_of_the_loop() -> None:
    finished = run_python("examples/quickstart.py")

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("  yes  ") == 16
    assert "quickstart.Book.update() of 100 rows sends signals" in finished.stdout
    assert finished.stdout.count(" ms") == 16
    assert finished.stdout.endswith("Equal, field by field.\n")


def test_the_quickstart_exits_with_an_error_when_the_records_differ() -> None:
    finished = run_python(
        "-c",
        "import runpy, signal_patch\n"
        "signal_patch.bulk_signals = lambda **options: signal_patch.no_bulk_signals()\n"
        "runpy.run_path('examples/quickstart.py', run_name='__main__')",
    )

    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert finished.stdout.endswith("The records differ.\n")


def test_the_shop_passes_its_own_tests() -> None:
    finished = run_python("manage.py", "test", "--settings", "settings", cwd=EXAMPLES / "shop")

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Ran 7 tests" in finished.stderr
