"""Django's own test suite, with the library on and without it.

`python -m tests.django_suite` downloads the tests of the installed Django, runs them twice (as they are; with
`signal_patch.enable()` and a receiver of everything), and fails on any test that ends otherwise and that
`allowed.py` does not list with a reason, and on any that it lists and that does not. In full, for one Django:

    for db in sqlite postgres mariadb; do python -m tests.django_suite --db $db --parallel 2; done

`--subset` runs what CI runs; `--labels update queries.test_bulk_update` only these labels. The servers are
found as our own tests find them (`PGHOST`, `MARIADB_HOST`, ...). Downloads and the vanilla results are kept
in the user's cache directory, each run's log beside its results; `--fresh` runs the vanilla side again.
"""

from __future__ import annotations
