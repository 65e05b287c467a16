"""What the tests of `examples/plugins` serve: its service, on a folder that they name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conftest import ROOT

sys.path.append(str(ROOT / "examples" / "plugins"))

import service

application = service.create(Path(os.environ["PLUGINS"]))
