"""Builds the component with componentize-py, unless that was done for these sources already."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WIT = HERE.parents[1] / "wit"
TARGET = HERE / "components" / "dice.wasm"


def main() -> None:
    sources = [HERE / "dice.py", *sorted(WIT.rglob("*.wit"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = TARGET.with_suffix(".stamp")
    if TARGET.exists() and stamp.exists() and stamp.read_text() == digest:
        return
    TARGET.parent.mkdir(exist_ok=True)
    tool = Path(sys.executable).parent / "componentize-py"
    options = ["-d", str(WIT), "-w", "http-handler"]
    command = [str(tool), *options, "componentize", "dice", "-o", str(TARGET)]
    subprocess.run(command, cwd=HERE, check=True)
    stamp.write_text(digest)


if __name__ == "__main__":
    main()
