#!/bin/bash
# Training speed beside PyTorch's: the whole step, the same sizes, in one run.
#
#   jobs/compare/compare.sh UNROLL [NAME]...
#
# UNROLL is the program, NAME a configuration of `unroll bench`; without names all but mingru512, which PyTorch does
# not have. Needs Python 3 with PyTorch and OpenBLAS; on Debian: apt-get install python3-torch libopenblas0-pthread
#
# PyTorch gets its best: first the OPENBLAS_CORETYPE that is fastest here (OpenBLAS 0.3.21 takes some recent CPUs
# for much older ones), then, for each configuration, the best of four ways to write the model
# (compare_torch.py) and of threads in one process or as many processes (DistributedDataParallel over gloo). The
# search ends after ten minutes: the configurations share what is left of them, and what was not measured is named.
# Then the two programs take turns for some rounds. A round's ratio is the better of unroll's two ways
# (1 rank with all threads, as many ranks with 1 thread) by PyTorch; medians over the rounds are printed.
# Machines are noisy: only ratios of one run mean anything.
#
#   CORES=2     cores to use, by both
#   ROUNDS=5    turns
#   SECONDS_EACH=3   of each measurement
#   SEARCH=600  seconds for the search, of all configurations together
#   PYTHON=/usr/bin/python3
#   JSON=FILE   where to write all figures, too
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
unroll=$(realpath "${1:?usage: compare.sh UNROLL [NAME]...}")
shift
names=("${@:-all}")
if [ "${names[0]}" = all ]; then
  names=(d2l char128 char512 char1024 word200 word650 lstm128 gru128 lstm512 gru512 wordlstm650)
fi
cores=${CORES:-2} rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-3} search=${SEARCH:-600}
python=${PYTHON:-/usr/bin/python3}
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
"$python" -c 'import torch' || {
  echo "compare.sh: no PyTorch for $python; on Debian: apt-get install python3-torch libopenblas0-pthread" >&2
  exit 2
}
export TMPDIR
TMPDIR=$(mktemp -d)
trap 'rm -rf "$TMPDIR"' EXIT
log=$TMPDIR/log

# name -> CELL V H T B L, from the program itself, so that the two can never differ
sizes_of() {
  "$unroll" bench --json --seconds 1e-6 "$1" 2>"$TMPDIR/messages" |
    "$python" -c 'import json, sys
r = json.load(sys.stdin)["configurations"][0]
print(r["cell"], r["vocab"], r["hidden"], r["steps"], r["batch"], r["layers"])' 2>/dev/null || {
    tail -n 1 "$TMPDIR/messages" >&2
    return 2
  }
}

# pytorch LIMIT CORETYPE FORMS PROCESSES SECONDS CELL V H T B L: lines `FORM TOKENS_PER_SECOND`, within LIMIT seconds
pytorch() {
  local threads=$((cores / $4)) type=(OPENBLAS_CORETYPE="$2")
  if [ "$2" = default ]; then type=(-u OPENBLAS_CORETYPE); fi
  env "${type[@]}" OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads \
    timeout -k 5 "$1" "$python" "$here/compare_torch.py" "$3" "$4" "$threads" "${@:6}" "$5"
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
declare -A sizes form processes
for name in "${names[@]}"; do
  sizes[$name]=$(sizes_of "$name")
  if [[ ${sizes[$name]} = mingru* ]]; then
    echo "compare.sh: $name: PyTorch has no minGRU; legal are configurations of the other cells" >&2
    exit 2
  fi
done

end=$((SECONDS + search)) core='' most=0
for type in default Zen SkylakeX Haswell default Zen SkylakeX Haswell; do # twice: machines are noisy
  limit=$(((end - SECONDS) / 8))
  # A CPU without AVX-512 stops at SkylakeX.
  read -r _ rate < <(pytorch $((limit > 1 ? limit : 1)) $type loop 1 1 rnn 65 512 64 64 1 2>"$TMPDIR/messages") || continue
  echo "OPENBLAS_CORETYPE=$type: $rate tokens/s (char512, loop)" >&2
  if larger "$rate" "$most"; then core=$type most=$rate; fi
done
if [ -z "$core" ]; then
  why=$(tail -n 1 "$TMPDIR/messages")
  echo "compare.sh: PyTorch measured nothing in SEARCH=$search seconds${why:+: $why}" >&2
  exit 1
fi

ways=$(printf '%s\n' "$cores" 1 | sort -rnu)
left_names=${#names[@]}
for name in "${names[@]}"; do
  most=0
  limit=$(((end - SECONDS) / left_names / $(wc -w <<<"$ways")))
  left_names=$((left_names - 1))
  for p in $ways; do
    : >"$TMPDIR/rates"
    # shellcheck disable=SC2086 # sizes are six words
    pytorch $((limit > 1 ? limit : 1)) "$core" script,loop,onehot,embedding "$p" 1 ${sizes[$name]} >"$TMPDIR/rates" ||
      echo "$name: PyTorch, $p process(es): only $(wc -l <"$TMPDIR/rates") of 4 ways measured in $limit seconds" >&2
    while read -r f rate; do
      echo "$name: PyTorch $f, $p process(es): $rate tokens/s" >&2
      if larger "$rate" "$most"; then form[$name]=$f processes[$name]=$p most=$rate; fi
    done <"$TMPDIR/rates"
  done
  if [ "$most" = 0 ]; then
    echo "compare.sh: $name: PyTorch measured nothing in its share of SEARCH=$search seconds" >&2
    exit 1
  fi
done
echo "search: $((SECONDS - end + search)) seconds" >&2

# ------------------------------------------------------------------- turns
for round in $(seq "$rounds"); do
  for name in "${names[@]}"; do
    # shellcheck disable=SC2086
    {
      threads=$(ours 1 "$name")
      read -r _ torch < <(pytorch 600 "$core" "${form[$name]}" "${processes[$name]}" "$seconds" ${sizes[$name]}) || {
        echo "compare.sh: $name: PyTorch ended without a figure" >&2
        exit 1
      }
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
    cell, (V, H, T, B, L) = turns[0][0], map(int, turns[0][1:6])
    torch, threads, threads_peak, ranks, ranks_peak = zip(*([float(w) for w in turn[8:]] for turn in turns))
    ratios = [max(a, b) / t for a, b, t in zip(threads, ranks, torch)]
    results.append(
        dict(
            name=name, cell=cell, vocab=V, hidden=H, steps=T, batch=B, layers=L, pytorch_form=turns[0][6],
            pytorch_processes=int(turns[0][7]), openblas_coretype=core, cores=int(cores), rounds=len(turns),
            pytorch_tokens_per_second=statistics.median(torch),
            threads_tokens_per_second=statistics.median(threads),
            ranks_tokens_per_second=statistics.median(ranks),
            fraction_of_peak=statistics.median(map(max, threads_peak, ranks_peak)),
            ratio=statistics.median(ratios), ratio_low=min(ratios), ratio_high=max(ratios),
        )
    )
print(f"tokens/s, medians of {results[0]['rounds']} rounds, {cores} cores, OPENBLAS_CORETYPE={core}")
heads = (f"unroll 1x{cores}", f"unroll {cores}x1")
print(f"{'name':12}{'PyTorch':>12}  {'its best way':22}{heads[0]:>12}{heads[1]:>12}{'of peak':>9}{'ratio':>7}   low to high")
for r in results:
    way = f"{r['pytorch_form']}, {r['pytorch_processes']} process" + ("es" if r["pytorch_processes"] > 1 else "")
    print(
        f"{r['name']:12}{r['pytorch_tokens_per_second']:12.0f}  {way:22}{r['threads_tokens_per_second']:12.0f}"
        f"{r['ranks_tokens_per_second']:12.0f}{r['fraction_of_peak']:9.2f}{r['ratio']:7.2f}"
        f"   {r['ratio_low']:.2f} to {r['ratio_high']:.2f}"
    )
if out:
    with open(out, "w", encoding="utf-8") as f:
        json.dump(results, f, indent=2)
        f.write("\n")
EOF_TABLE
