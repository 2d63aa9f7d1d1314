"""What `python -m sglang.launch_server` runs where this folder's parent is on PYTHONPATH: the fake engine."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[2] / "fake_engine.py"), run_name="__main__")
