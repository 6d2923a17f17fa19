#!/bin/bash
# How long until a character model is that good? unroll beside PyTorch, one after the other.
#
#   jobs/compare/time_to_quality.sh UNROLL TEXT
#
# The defaults are those of the tinyshakespeare experiment: characters, 90% for training, H=512, T=B=64, Adam
# 2e-3 with cosine decay, 20 epochs, target 1.627 nats per character on the last 10%. Seconds are wall time
# from the start of the program (PyTorch: from after its import). Takes many minutes; needs what compare.sh needs.
#
#   CORES=2 EPOCHS=20 HIDDEN=512 STEPS=64 BATCH=64 TARGET=1.627
#   RANKS=2              of unroll, which share the cores; as many as cores unless told otherwise
#   PROCESSES=2          of PyTorch, the same
#   FORM=loop            of the PyTorch model: onehot, embedding, loop, script (compare_torch.py)
#   OPENBLAS_CORETYPE    kernels of OpenBLAS; compare.sh prints which is fastest
#   PYTHON=/usr/bin/python3
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
usage='usage: time_to_quality.sh UNROLL TEXT'
unroll=$(realpath "${1:?$usage}") text=$(realpath "${2:?$usage}")
cores=${CORES:-2} epochs=${EPOCHS:-20} hidden=${HIDDEN:-512} steps=${STEPS:-64} batch=${BATCH:-64}
target=${TARGET:-1.627} form=${FORM:-loop} python=${PYTHON:-/usr/bin/python3}
ranks=${RANKS:-$cores} processes=${PROCESSES:-$cores}
launch=()
if [ "$ranks" -gt 1 ]; then launch=(mpirun -n "$ranks" --oversubscribe --bind-to none); fi
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

now() { date +%s.%N; }

# Threads of each of so many.
threads_of() { echo $((cores > $1 ? cores / $1 : 1)); }

# Each `valid` line with the seconds since $begin instead of what follows the loss.
stamp() {
  local words
  while read -r -a words; do
    if [ "${words[0]}" = valid ]; then
      awk -v e="${words[4]}" -v l="${words[6]}" -v a="$begin" -v b="$(now)" \
        'BEGIN { printf "valid epoch %d loss %s seconds %.1f\n", e, l, b - a }'
    fi
  done
}

threads=$(threads_of "$ranks")
echo "unroll ($ranks x $threads)"
begin=$(now)
OMP_NUM_THREADS=$threads "${launch[@]}" "$unroll" train "$text" -o "$work/run.h5" --level char --valid-fraction 0.1 \
  --hidden "$hidden" --steps "$steps" --batch "$batch" --optimizer adam --lr 2e-3 --schedule cosine --clip 1 --epochs "$epochs" 2>"$work/messages" |
  stamp | tee "$work/unroll" || { cat "$work/messages" >&2; exit 1; }
threads=$(threads_of "$processes")
echo "PyTorch ($form, $processes x $threads)"
OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads \
  "$python" "$here/quality_torch.py" "$text" "$form" "$processes" "$threads" "$hidden" "$steps" "$batch" "$epochs" |
  tee "$work/pytorch"

# Seconds of the first line at or below the target; empty if there is none.
reached() {
  awk -v target="$target" '$5 <= target { print $7; exit }' "$1"
}
ours=$(reached "$work/unroll") theirs=$(reached "$work/pytorch")
echo "seconds to $target nats per character: unroll ${ours:-never}, PyTorch ${theirs:-never}"
if [ -n "$ours" ] && [ -n "$theirs" ]; then
  awk -v a="$theirs" -v b="$ours" 'BEGIN { printf "ratio %.2f\n", a / b }'
fi
