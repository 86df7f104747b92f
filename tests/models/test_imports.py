from __future__ import annotations

import subprocess
import sys


def test_the_room_is_imported_without_torch() -> None:
    code = (
        "import sys, llamafarm.models.load, llamafarm.models.shape_reader;"
        "print({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
