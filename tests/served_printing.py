"""What the servers of `tests/py/test_logging.py` serve: an App whose guest prints, logging as a server leaves it."""

from __future__ import annotations

import logging
import os

import wasgi
from tests.conftest import PROBE

match os.environ.get("WASGI_TESTS_LOGGING"):
    case "configured":
        logging.basicConfig(level=logging.INFO, format="configured %(name)s %(wasgi_exchange)s %(message)s")
        logging.getLogger("granian").setLevel(logging.CRITICAL)
    case "level":
        logging.getLogger("wasgi").setLevel(logging.WARNING)

application = wasgi.App(PROBE)
wsgi = application.wsgi
