#!/bin/bash
# array.sbatch: a sweep of four lines, one of them wrong; the others finish, and are ranked. And once more: what has
# finished is left as it is.
#
#   array.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm

edit sweep array.sbatch -e 's/^options=.*/options=(--epochs 1 --batch 16 --steps 20)/' \
  -e '/^--hidden 256 --lr 2e-3/,/^--hidden 512 --lr 1e-3/d' \
  -e "s/^table='/&\n--hidden 8 --lr 1e-4\n--hidden 8 --lr 5e-3\n\n--hidden 8 --lr -1\n--hidden 8 --lr 1e-3/"
sweep() { submit sweep array.sbatch --ntasks-per-node=2 --cpus-per-task="$cpus" --mem-per-cpu=50 --output=out.%a; }
states() { scontrol -o show job "${job[sweep]}" | grep -o 'ArrayTaskId=[0-9]*\| JobState=[A-Z]*\| ExitCode=[0-9:]*' | tr -d '\n '; }
# shellcheck disable=SC2317 # called by await
is_over() { local left && left=$(squeue -h -j "${job[sweep]}") && [ -z "$left" ]; }

sweep
check "the sweep ends" await 100 is_over
for k in 1 2 4; do
  check "task $k has a run" [ -f sweep/sweep/$k.h5 ]
  check "task $k has finished" grep -q "ArrayTaskId=${k}JobState=COMPLETEDExitCode=0:0" <<<"$(states)"
done
check "task 3 has failed" grep -q 'ArrayTaskId=3JobState=FAILEDExitCode=2:0' <<<"$(states)"
check "task 3 has none" [ ! -e sweep/sweep/3.h5 ]
check "task 3 says why" grep -q -- '--lr' sweep/out.3
states
cat sweep/sweep/ranking.txt

# The ranking, by other means: losses of the best validation, in order.
"$python" - sweep/sweep/ranking.txt <<'PYTHON'
import sys
import h5py
rows = [line.split(None, 4) for line in open(sys.argv[1])]
assert rows[0] == ["loss", "step", "run", "line", "options\n"], rows[0]
loss = {k: min(h5py.File(f"sweep/sweep/{k}.h5")["metrics/valid/loss"][:]) for k in (1, 2, 4)}
best_first = sorted(loss, key=loss.get)
assert best_first == [2, 4, 1], loss
assert [int(row[3]) for row in rows[1:4]] == best_first, rows
for row in rows[1:4]:
    assert abs(float(row[0]) - loss[int(row[3])]) < 1e-5 and row[2] == "finished", row
assert rows[4] == ["-", "-", "no", "result", rows[4][4]] and "3  --hidden 8 --lr -1" in rows[4][4], rows[4]
assert len(rows) == 5
PYTHON
check "the ranking is right" [ $? = 0 ]
(cd sweep && bash array.sbatch) >by_hand
check "the same by hand" diff by_hand sweep/sweep/ranking.txt

cp -r sweep/sweep before
sweep
check "the same sweep again ends" await 100 is_over
for k in 1 2 4; do check "task $k is left as it was" cmp before/$k.h5 sweep/sweep/$k.h5; done
check "and ranked as before" diff before/ranking.txt sweep/sweep/ranking.txt
finish
