"""Django's own test suite, with the library on and without it.

`python -m tests.django_suite` downloads the tests of the installed Django and runs them twice: as they are,
and with `signal_patch.enable()` and a receiver for everything. It fails if a test ends differently and
`allowed.py` does not list it with a reason, or if a listed test does not end differently. In full, for one
Django:

    for db in sqlite postgres mariadb; do python -m tests.django_suite --db $db --parallel 2; done

`--subset` runs what CI runs; `--labels update queries.test_bulk_update` only these labels. The servers are
found as our own tests find them (`PGHOST`, `MARIADB_HOST`, ...). Downloads and the vanilla results are kept
in the user's cache directory, each run's log beside its results; `--fresh` runs the vanilla side again.
"""

from __future__ import annotations
