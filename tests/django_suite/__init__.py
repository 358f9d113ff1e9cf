"""Django's own test suite, with the library on and without it.

`python -m tests.django_suite` downloads the tests of the installed Django, runs them twice, and
fails on any test whose outcome differs and that `allowed.py` does not list.
"""
