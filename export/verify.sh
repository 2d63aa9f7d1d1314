#!/bin/sh
# SIMULATED: these numbers come from a model of the engine, not from a measurement.
# autotune 0.1.0, study llama-8b-1xh100--ttft-p95-10s-at-50, trial 0; evidence in EVIDENCE.md.
# Benches a deployed service against the SLO that it was tuned for: verify.sh [URL [OPTION ...]]
# Exit code: 0 all ceilings are kept (undecided ones by value), 1 one is missed, else it was not measured.
# Without a URL: the Service, from a pod. From elsewhere: kubectl port-forward service/sglang-llama-8b-1xh100-ttft-p95-10s-at-5 30000:30000
# Options are those of autotune bench, such as --api-key-env NAME or --out FOLDER.
set -eu

[ $# -gt 0 ] || set -- http://sglang-llama-8b-1xh100-ttft-p95-10s-at-5:30000
url=$1
shift
exec autotune bench "$url" --slo "$(dirname "$0")/slo.yaml" "$@"
