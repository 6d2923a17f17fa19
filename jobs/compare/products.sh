#!/bin/bash
# Single matrix products: unroll's kernel beside OpenBLAS and oneDNN, in GFLOP/s and as ratios.
#
#   jobs/compare/products.sh BUILD
#
# BUILD is a build folder of unroll (its libunroll.a is used). Needs the headers of both libraries; on Debian:
# apt-get install libopenblas-pthread-dev libdnnl-dev
#
# Shapes: squares, and the product of one time step, B sequences by H x H weights. `linear` is the kernel as a
# training step uses it, the weights packed before; `packed` counts the packing each time, as the libraries
# must; `recurrence` is a time step as unroll computes it, in a window of 64, with gathering and tanh. The
# programs take turns for some rounds; medians are printed, and the three by the better of the two libraries.
# OpenMP's threads are bound, because two of them on one core would spin against each other (OpenBLAS has
# threads of its own, which would all be bound to the first core).
#
#   CORES=2   threads
#   ROUNDS=5  turns
#   SECONDS_EACH=0.2   of each shape
#   OPENBLAS_CORETYPE  kernels of OpenBLAS; otherwise the fastest of Zen, SkylakeX, Haswell is taken
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=$(realpath "${1:?usage: products.sh BUILD}")
cores=${CORES:-2} rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-0.2}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

library=$(find "$build" -name libunroll.a | head -n 1)
if ! ${CC:-cc} -std=c11 -O2 -fopenmp -D_POSIX_C_SOURCE=200809L -I"$here/../../src" -I"$here/../../include" \
  "$here/products.c" "${library:-libunroll.a}" -lopenblas -ldnnl -lm -o "$work/products"; then
  echo "products.sh: not built; on Debian: apt-get install libopenblas-pthread-dev libdnnl-dev" >&2
  exit 2
fi
export OMP_NUM_THREADS=$cores OPENBLAS_NUM_THREADS=$cores

# OpenBLAS 0.3.21 takes some recent CPUs for much older ones. A CPU without AVX-512 stops at SkylakeX.
if [ -z "${OPENBLAS_CORETYPE:-}" ]; then
  most=0
  for type in Zen SkylakeX Haswell; do
    rate=$(OPENBLAS_CORETYPE=$type "$work/products" openblas 0.02 | awk '{ sum += $4 } END { print sum }') || continue
    if awk -v a="$rate" -v b="$most" 'BEGIN { exit !(a > b) }'; then
      most=$rate
      export OPENBLAS_CORETYPE=$type
    fi
  done
fi

for round in $(seq "$rounds"); do
  for name in linear openblas packed onednn recurrence; do
    bind=true
    if [ $name = openblas ]; then bind=false; fi
    OMP_PROC_BIND=$bind "$work/products" $name "$seconds" | sed "s/^/$name /" >>"$work/log"
  done
  echo "round $round of $rounds" >&2
done

echo "GFLOP/s, medians of $rounds rounds, $cores threads, OPENBLAS_CORETYPE=$OPENBLAS_CORETYPE"
printf '%6s%6s%6s%11s%11s%11s%11s%11s%12s%12s%12s\n' M N K linear packed recurrence openblas onednn linear/lib packed/lib recur/lib
sort -k1,1 -k2,2n -k3,3n -k4,4n -k5,5g "$work/log" | awk -v rounds="$rounds" '
  { key = $2 " " $3 " " $4; n[$1 key] += 1 }
  n[$1 key] == int((rounds + 1) / 2) { median[$1, key] = $5; if ($1 == "linear") { order[++count] = key } }
  function cell(name, format, unit) {
    return (name, key) in median ? sprintf(format, median[name, key] / unit) : "-"
  }
  END {
    for (i = 1; i <= count; ++i) {
      key = order[i]; split(key, s, " ")
      a = median["openblas", key]; b = median["onednn", key]; best = a > b ? a : b
      printf "%6d%6d%6d%11s%11s%11s%11s%11s%12s%12s%12s\n", s[1], s[2], s[3],
        cell("linear", "%.1f", 1), cell("packed", "%.1f", 1), cell("recurrence", "%.1f", 1),
        cell("openblas", "%.1f", 1), cell("onednn", "%.1f", 1),
        cell("linear", "%.2f", best), cell("packed", "%.2f", best), cell("recurrence", "%.2f", best)
    }
  }' | sort -s -k3,3n -k1,1n
