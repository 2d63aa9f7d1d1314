#!/bin/sh
# autotune VERSION, study r1, trial 2; evidence in EVIDENCE.md.
# Rank 1, for node1 (10.0.0.11).
# HF_TOKEN is taken from the environment of this command.
set -eu

exec env NCCL_DEBUG=INFO python3 -m sglang.launch_server --config "$(dirname "$0")/sglang.yaml" \
  --node-rank 1
