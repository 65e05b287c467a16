"""``python -m wasgi``: the command ``wasgi``."""

import sys

from wasgi.cli import main

sys.exit(main())
