"""SGLang: how it is launched, watched and read. Its one value, `SGLANG`, is all that others know of it."""

import re
from pathlib import Path

from autotune.engine.dialect import Dialect, VocabularyProbe
from autotune.engine.sglang.argv import COMMAND, render_argv
from autotune.engine.sglang.batch_lines import decode_steps
from autotune.engine.sglang.defaults import known_defaults
from autotune.engine.sglang.effective import parse_effective
from autotune.engine.sglang.flags import load_catalogue, memory_use
from autotune.engine.sglang.live import live_flags
from autotune.engine.sglang.log_lines import FAILURE_LINES, START_LINES
from autotune.engine.sglang.validity import invalid_reason

SGLANG = Dialect(
    name="sglang",
    command=COMMAND,
    argv=render_argv,
    catalogue=load_catalogue,
    known_defaults=known_defaults,
    invalid_reason=invalid_reason,
    memory_use=memory_use,
    parse_effective=parse_effective,
    live_flags=live_flags,
    start_lines=START_LINES,
    failure_lines=FAILURE_LINES,
    decode_steps=decode_steps,
    health_path="/health",
    info_path="/server_info",
    flush_path="/flush_cache",
    abort_path="/abort_request",
    # srt/managers/tokenizer_manager.py:1530 (0.5.16 :1126) refuses it before the scheduler sees it.
    vocabulary_probe=VocabularyProbe(
        path="/generate",
        body={
            "input_ids": [1],
            "sampling_params": {"max_new_tokens": 1},
            "return_logprob": True,
            "token_ids_logprob": [-1],
        },
        size=re.compile(r"valid range is \[0, (\d+)\)"),
    ),
    preload_program=Path(__file__).parent / "preload.py",
)
