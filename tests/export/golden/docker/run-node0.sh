#!/bin/sh
# autotune VERSION, study r1, trial 2; evidence in EVIDENCE.md.
# Rank 0, for node0 (10.0.0.10).
# Start every node within a few minutes. To stop, stop rank 0 first: the others ignore SIGTERM.
# If one rank died, restart all of them: the rest wait for it in vain.
# Restart policy unless-stopped: a service comes back by itself, a trial must not.
# HF_TOKEN is taken from the environment of this command.
set -eu

exec docker run \
  --detach --init \
  --name sglang-r1-node0 \
  --restart unless-stopped \
  --network host \
  --shm-size 32g \
  --memory 900g \
  --memory-swap 900g \
  --ulimit memlock=-1 \
  --ulimit stack=67108864 \
  --gpus 8 \
  --mount type=bind,source=/data/models,target=/models,readonly \
  --env NCCL_DEBUG=INFO \
  --env HF_TOKEN \
  lmsysorg/sglang:v0.5.23 python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --host 0.0.0.0 --port 30000 --nnodes 2 --node-rank 0 --dist-init-addr 10.0.0.10:20000 --tp-size 16 --trust-remote-code --chunked-prefill-size 8192 --schedule-policy lpm
