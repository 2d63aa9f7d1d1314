"""A package by the name of the real one, which imports as slowly as FAKE_IMPORT_S says."""

import os
import time

time.sleep(float(os.environ.get("FAKE_IMPORT_S", "0")))
if os.environ.get("FAKE_IMPORT_FAILS"):
    raise RuntimeError("the engine cannot be imported here")
