#!/bin/sh
# autotune VERSION, study r1, trial 2; evidence in EVIDENCE.md.
# Benches a deployed service against the SLO that it was tuned for: verify.sh [URL [OPTION ...]]
# Exit code: 0 all ceilings are kept (undecided ones by value), 1 one is missed, else not measured.
# Without a URL: the Service, from a pod. From elsewhere: kubectl port-forward service/sglang-r1-leader 30000:30000
# Options are those of autotune bench, such as --api-key-env NAME or --out FOLDER.
set -eu

[ $# -gt 0 ] || set -- http://sglang-r1-leader:30000
url=$1
shift
exec autotune bench "$url" --slo "$(dirname "$0")/slo.yaml" "$@"
