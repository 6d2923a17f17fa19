#!/bin/bash
# `unroll train --diagnose-every`: against `unroll gradflow` and NumPy, ranks, threads, resume, short texts, mistakes.
#
#   diagnose.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
oracle=("$python" "$source_dir/tests/story/gradflow.py")

make_text 20000 >text
make_text 24001 | tail -c 4001 | sed 's/walks/wälks/' | head -c 4001 >valid
characters=$(LC_ALL=C.UTF-8 wc -m <valid)
head -c $(($(wc -c <valid) - (characters - 1) % 16)) valid >even # no token is left over in 16 streams

train=("$unroll" train text --batch 16 --steps 12 --max-steps 30 --lr 5e-3)
rows() { "$python" -c 'import sys, h5py; print(*h5py.File(sys.argv[1])["diagnostics/step"][:])' "$1"; }
lags() { "$python" -c 'import sys, h5py; a = h5py.File(sys.argv[1])["diagnostics"].attrs; print(a["lags"], a["context"])' "$1"; }

# ------------------------------------------------- what unroll gradflow says
# In one shard the positions are those of gradflow on the validation text.
check "train in one shard" quiet 0 "${train[@]}" -o a.h5 --valid even --shards 1 --hidden 14 --layers 2 --diagnose-every 15
check "measured at 15 and 30" [ "$(rows a.h5)" = "15 30" ]
check "a line per layer and time" [ "$(grep -c '^diagnose step [0-9]* layer [01] half_lag [-0-9]* percent_lag ' out)" = 4 ]
check "measure again" quiet 0 "$unroll" gradflow a.h5 even --positions 64 --lags 64 --context 64 -o flow.h5
check "the same bits as gradflow" "${oracle[@]}" last a.h5 flow.h5
check "the page" quiet 0 "$unroll" info a.h5
check "has the curves" [ "$(grep -c '^  \(growth\|radius\), layer [01] ' out)" = 4 ]
check "and the last result" [ "$(grep -c '^  layer [01]  [a-z]*  half_lag ' out)" = 2 ]

# ------------------------------------------------- ranks, threads, resume
many=("${train[@]}" --valid valid --hidden 14 --layers 2 --shards 8 --diagnose-every 10 --valid-every 10 --log-every 4)
check "one rank" quiet 0 env OMP_NUM_THREADS=1 "${many[@]}" -o 1.h5
check "against NumPy" "${oracle[@]}" along 1.h5 valid
for item in 1:3 2:1 4:2 8:1; do
  IFS=: read -r ranks threads <<<"$item"
  check "$ranks ranks, $threads threads" quiet 0 env OMP_NUM_THREADS="$threads" OPENBLAS_NUM_THREADS="$threads" \
    mpirun -n "$ranks" "${many[@]}" -o "$ranks-$threads.h5"
done
check "the same bits" same_run 1.h5 1-3.h5 2-1.h5 4-2.h5 8-1.h5
check "to step 16" quiet 0 mpirun -n 4 "${many[@]/#30/16}" -o part.h5
check "one row so far" [ "$(rows part.h5)" = 10 ]
mv part.best.h5 best.h5 # of step 10: the row of that step is in it
echo '{"kind": "diagnose", "step": 20' >>part.jsonl # as a crash leaves it
check "and on" quiet 0 mpirun -n 2 "$unroll" train text --resume --max-steps 30 -o part.h5
check "the bits of a run that never stopped" same_run 1.h5 part.h5
check "from the best model's file" quiet 0 "$unroll" train text --resume --max-steps 30 -o best.h5
check "the same bits from there" same_run 1.h5 best.h5

# ------------------------------------------------- gated cells
for cell in gru lstm mingru; do
  gated=("${many[@]}" --cell $cell)
  check "one rank, $cell" quiet 0 env OMP_NUM_THREADS=1 "${gated[@]}" -o $cell.h5
  check "against NumPy, $cell" "${oracle[@]}" along $cell.h5 valid
  check "two ranks, $cell" quiet 0 mpirun -n 2 "${gated[@]}" -o $cell.2.h5
  check "the same bits, $cell" same_run $cell.h5 $cell.2.h5
  check "to step 16, $cell" quiet 0 "${gated[@]/#30/16}" -o part.h5 --overwrite
  check "and on, $cell" quiet 0 "$unroll" train --resume --max-steps 30 -o part.h5
  check "the bits of a run that never stopped, $cell" same_run $cell.h5 part.h5
  check "the page, $cell" quiet 0 "$unroll" info $cell.h5
  check "has a line per layer, $cell" [ "$(grep -c '^  layer [01]  [a-z]*  half_lag ' out)" = 2 ]
done

# ------------------------------------------------- off, and what it leaves alone
check "without" quiet 0 "${many[@]/#--diagnose-every/--keep}" -o off.h5
check "nothing else changes" "$python" - "$source_dir" <<'PY'
import sys

sys.path.insert(0, sys.argv[1] + "/tests/story")
import same_run

on, off = same_run.content("1.h5"), same_run.content("off.h5")
assert any(name.startswith("diagnostics/") for name in on)
assert {name: value for name, value in on.items() if not name.startswith("diagnostics")} == off
PY
check_not "no line in the log" grep -q diagnose off.jsonl
check "on, later" quiet 0 "$unroll" train --resume -o off.h5 --max-steps 40 --diagnose-every 20
check "measured once" [ "$(rows off.h5)" = 40 ]

# ------------------------------------------------- other texts
check "no validation" quiet 0 "${train[@]}" -o b.h5 --valid-fraction 0 --shards 4 --hidden 9 --activation relu --diagnose-every 30
check "measures on the training text" "${oracle[@]}" along b.h5 text
head -c 1000 text >little
check "little text" quiet 0 "${train[@]}" -o c.h5 --valid little --shards 16 --hidden 9 --diagnose-every 30
check "has fewer lags" [ "$(lags c.h5)" = "61 0" ]
check "but right ones" "${oracle[@]}" along c.h5 little
head -c 20 text >tiny
check "hardly any text" quiet 0 "${train[@]}" -o d.h5 --valid tiny --shards 16 --hidden 9 --diagnose-every 30
check "measures on the training text, too" "${oracle[@]}" along d.h5 text

# ------------------------------------------------- other ways to train
for way in full randomized; do
  some=("$unroll" train text --batch 16 --bptt $way --epochs 9 --max-steps 4 --hidden 9 --valid valid --shards 8 --diagnose-every 2)
  check "--bptt $way" quiet 0 "${some[@]}" -o $way.h5
  check "--bptt $way against NumPy" "${oracle[@]}" along $way.h5 valid
  check "--bptt $way to step 3" quiet 0 mpirun -n 2 "${some[@]/#4/3}" -o part.h5 --overwrite
  check "--bptt $way and on" quiet 0 "$unroll" train --resume --max-steps 4 -o part.h5
  check "--bptt $way: the same bits" same_run $way.h5 part.h5
done

# ------------------------------------------------- mistakes
check "no text to measure on" quiet 2 "$unroll" train tiny -o e.h5 --batch 16 --steps 1 --valid-fraction 0 --hidden 5 \
  --diagnose-every 1
check "says so" grep -q -- '--diagnose-every needs 2 tokens.*16 shards' err
check "nothing is written" [ ! -e e.h5 ]
check "lines" quiet 2 "$unroll" train text -o e.h5 --batch 16 --sequences line --bptt full --diagnose-every 1
check "have no streams" grep -q -- '--diagnose-every needs --sequences stream' err
check "a time" quiet 2 "${train[@]}" -o e.h5 --diagnose-every 5m
check "another plan in the file" "$python" -c 'import h5py; h5py.File("c.h5", "r+")["diagnostics"].attrs["context"] += 1'
check "is refused" quiet 2 "$unroll" train --resume -o c.h5 --max-steps 60
check "with the way on" grep -q -- 'context 1, .*--diagnose-every 0 goes on' err
check "which works" quiet 0 "$unroll" train --resume -o c.h5 --max-steps 60 --diagnose-every 0
check "and keeps what there was" [ "$(rows c.h5)" = 30 ]

# States that overflow: a warning, no row; the training decides for itself what to do.
check "blow up the weights" "${oracle[@]}" construct b.h5 1e30
check "go on" quiet 0 mpirun -n 2 "$unroll" train --resume -o b.h5 --max-steps 35 --diagnose-every 2
check "with a warning" [ "$(grep -c 'warning: gradients of layer 0 are not finite' err)" = 2 ]
check "and no row" [ "$(rows b.h5)" = 30 ]

# ------------------------------------------------- pictures
if "$python" -c 'import matplotlib' 2>/dev/null; then
  check "plot a run" quiet 0 "$python" "$source_dir/jobs/plot" 1.h5 -o 1.svg
  check "with the gradients" grep -q 'spectral radius, layer 0' 1.svg
  for cell in gru mingru; do check "plot $cell" quiet 0 "$python" "$source_dir/jobs/plot" $cell.h5 -o $cell.svg; done
else
  echo "not checked: pictures (no matplotlib)"
fi
finish
