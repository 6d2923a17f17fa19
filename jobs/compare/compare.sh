#!/bin/bash
# Training speed beside PyTorch's: the whole step, the same sizes, in one run.
#
#   jobs/compare/compare.sh UNROLL [NAME]...
#
# UNROLL is the program, NAME a configuration of `unroll bench`; without names all six. Needs Python 3 with
# PyTorch and OpenBLAS; on Debian: apt-get install python3-torch libopenblas0-pthread
#
# PyTorch gets its best: first the OPENBLAS_CORETYPE that is fastest here (OpenBLAS 0.3.21 takes some recent CPUs
# for much older ones), then, for each configuration, the best of three ways to write the model
# (compare_torch.py) and of threads in one process or as many processes (DistributedDataParallel over gloo).
# Then the two programs take turns for some rounds. A round's ratio is the better of unroll's two ways
# (1 rank with all threads, as many ranks with 1 thread) by PyTorch; medians over the rounds are printed.
# Machines are noisy: only ratios of one run mean anything.
#
#   CORES=2     cores to use, by both
#   ROUNDS=5    turns
#   SECONDS_EACH=3   of each measurement
#   PYTHON=/usr/bin/python3
#   JSON=FILE   where to write all figures, too
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
unroll=$(realpath "${1:?usage: compare.sh UNROLL [NAME]...}")
shift
names=("${@:-all}")
if [ "${names[0]}" = all ]; then names=(d2l char128 char512 char1024 word200 word650); fi
cores=${CORES:-2} rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-3} python=${PYTHON:-/usr/bin/python3}
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
"$python" -c 'import torch' || {
  echo "compare.sh: no PyTorch for $python; on Debian: apt-get install python3-torch libopenblas0-pthread" >&2
  exit 2
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# name -> V H T B, from the program itself, so that the two can never differ
sizes_of() {
  "$unroll" bench --json --seconds 1e-6 "$1" 2>/dev/null |
    "$python" -c 'import json, sys
r = json.load(sys.stdin)["configurations"][0]
print(r["vocab"], r["hidden"], r["steps"], r["batch"])'
}

# pytorch CORETYPE FORM PROCESSES SECONDS V H T B: tokens per second
pytorch() {
  local threads=$((cores / $3))
  OPENBLAS_CORETYPE=$1 OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads \
    "$python" "$here/compare_torch.py" "$2" "$3" "$threads" "${@:5}" "$4"
}

# ours RANKS NAME: tokens per second and fraction of peak
ours() {
  local launch=()
  if [ "$1" -gt 1 ]; then launch=(mpirun -n "$1" --oversubscribe --bind-to none); fi
  OMP_NUM_THREADS=$((cores / $1)) "${launch[@]}" "$unroll" bench --json --seconds "$seconds" "$2" 2>/dev/null |
    "$python" -c 'import json, sys
r = json.load(sys.stdin)["configurations"][0]
print(r["tokens_per_second"], r["fraction_of_peak"])'
}

larger() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'; }

# ------------------------------------------- what is best for PyTorch here
core='' most=0
for type in Zen SkylakeX Haswell Zen SkylakeX Haswell; do # twice: machines are noisy
  rate=$(pytorch $type loop 1 1 65 512 64 64) || continue # a CPU without AVX-512 stops at SkylakeX
  echo "OPENBLAS_CORETYPE=$type: $rate tokens/s (char512, loop)" >&2
  if larger "$rate" "$most"; then core=$type most=$rate; fi
done

declare -A sizes form processes
for name in "${names[@]}"; do
  sizes[$name]=$(sizes_of "$name")
  most=0
  for f in onehot embedding loop; do
    for p in $(printf '%s\n' 1 "$cores" | sort -u); do
      # shellcheck disable=SC2086 # sizes are four words
      rate=$(pytorch "$core" $f "$p" 1 ${sizes[$name]})
      echo "$name: PyTorch $f, $p process(es): $rate tokens/s" >&2
      if larger "$rate" "$most"; then form[$name]=$f processes[$name]=$p most=$rate; fi
    done
  done
done

# ------------------------------------------------------------------- turns
for round in $(seq "$rounds"); do
  for name in "${names[@]}"; do
    # shellcheck disable=SC2086
    {
      threads=$(ours 1 "$name")
      torch=$(pytorch "$core" "${form[$name]}" "${processes[$name]}" "$seconds" ${sizes[$name]})
      ranks=$(ours "$cores" "$name")
      echo "$name ${sizes[$name]} ${form[$name]} ${processes[$name]} $torch $threads $ranks" >>"$log"
    }
  done
  echo "round $round of $rounds" >&2
done

"$python" - "$log" "$core" "$cores" "${JSON:-}" <<'EOF_TABLE'
import json
import statistics
import sys

log, core, cores, out = sys.argv[1:]
rows = {}
with open(log, encoding="utf-8") as f:
    for line in f:
        words = line.split()
        rows.setdefault(words[0], []).append(words[1:])
results = []
for name, turns in rows.items():
    V, H, T, B = map(int, turns[0][:4])
    torch, threads, threads_peak, ranks, ranks_peak = zip(*([float(w) for w in turn[6:]] for turn in turns))
    ratios = [max(a, b) / t for a, b, t in zip(threads, ranks, torch)]
    results.append(
        dict(
            name=name, vocab=V, hidden=H, steps=T, batch=B, pytorch_form=turns[0][4],
            pytorch_processes=int(turns[0][5]), openblas_coretype=core, cores=int(cores), rounds=len(turns),
            pytorch_tokens_per_second=statistics.median(torch),
            threads_tokens_per_second=statistics.median(threads),
            ranks_tokens_per_second=statistics.median(ranks),
            fraction_of_peak=statistics.median(map(max, threads_peak, ranks_peak)),
            ratio=statistics.median(ratios), ratio_low=min(ratios), ratio_high=max(ratios),
        )
    )
print(f"tokens/s, medians of {results[0]['rounds']} rounds, {cores} cores, OPENBLAS_CORETYPE={core}")
heads = (f"unroll 1x{cores}", f"unroll {cores}x1")
print(f"{'name':10}{'PyTorch':>12}  {'its best way':22}{heads[0]:>12}{heads[1]:>12}{'of peak':>9}{'ratio':>7}   low to high")
for r in results:
    way = f"{r['pytorch_form']}, {r['pytorch_processes']} process" + ("es" if r["pytorch_processes"] > 1 else "")
    print(
        f"{r['name']:10}{r['pytorch_tokens_per_second']:12.0f}  {way:22}{r['threads_tokens_per_second']:12.0f}"
        f"{r['ranks_tokens_per_second']:12.0f}{r['fraction_of_peak']:9.2f}{r['ratio']:7.2f}"
        f"   {r['ratio_low']:.2f} to {r['ratio_high']:.2f}"
    )
if out:
    with open(out, "w", encoding="utf-8") as f:
        json.dump(results, f, indent=2)
        f.write("\n")
EOF_TABLE
