#!/bin/sh
# autotune VERSION, study r1, trial 2; evidence in EVIDENCE.md.
# Benches a deployed service against the SLO that it was tuned for: verify.sh [URL [OPTION ...]]
# Exit code: 0 all ceilings are kept (undecided ones by value), 1 one is missed, else not measured.
# Without a URL: rank 0 on node0.
# Options are those of autotune bench, such as --api-key-env NAME or --out FOLDER.
set -eu

[ $# -gt 0 ] || set -- http://10.0.0.10:30000
url=$1
shift
exec autotune bench "$url" --slo "$(dirname "$0")/slo.yaml" "$@"
