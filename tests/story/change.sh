#!/bin/bash
# --resume --change: a run is trained longer, or with another rate, from there on; the run file says so.
#
#   change.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
export OMP_NUM_THREADS=1
make_text 30000 >text
options=(--hidden 24 --batch 16 --steps 20 --log-every 11)
train() { quiet "$1" mpirun -n "$2" "$unroll" train text "${@:3}"; }
changed_in() { "$python" -c 'import sys, h5py
p = h5py.File(sys.argv[1])["provenance"]
print(*(p["changed"].asstr()[...] if "changed" in p else []), sep="\n")' "$1"; }

# same_model RUN OTHER: weights, moments and carried states, bit for bit
cat >same_model.py <<'PYTHON'
import sys
import h5py
a, b = (h5py.File(name) for name in sys.argv[1:])
def visit(name, node):
    if isinstance(node, h5py.Dataset):
        assert node[...].tobytes() == b[node.name][...].tobytes(), node.name
for group in "weights", "optimizer", "state":
    a[group].visititems(visit)
for name in "step", "epoch", "window", "tokens", "updates", "finished":
    assert a["state"].attrs[name] == b["state"].attrs[name], name
PYTHON

# --------------------------------------------------------------- trained longer
check "one epoch" train 0 2 -o a.h5 "${options[@]}" --epochs 1 --schedule constant
n=$(step_of a.h5)
cp a.h5 one.h5
check "two epochs" train 0 1 -o two.h5 "${options[@]}" --epochs 2 --schedule constant
check "not by --resume alone" train 2 1 --resume -o a.h5 --epochs 2
check "which says how" grep -q -- '--epochs 2: the run to resume has 1, .*--change' err
check "nothing is written" cmp a.h5 one.h5
check "nothing is recorded yet" [ -z "$(changed_in a.h5)" ]

check "half an epoch more" train 0 4 --resume --change -o a.h5 --epochs 2 --max-steps $((n + n / 2))
check "is told" grep -qx "changed: step $n: epochs 1 -> 2" err
check "a finished run goes on" quiet 1 "$unroll" info --finished a.h5
check "the same words, as a job has them that is started again" train 0 1 --resume --change -o a.h5 --epochs 2 --max-steps 0
check_not "change nothing more" grep -q '^changed' err
check "it is finished" quiet 0 "$unroll" info --finished a.h5
check "one epoch and one more are two, bit for bit" "$python" same_model.py two.h5 a.h5
check "on record: $(changed_in a.h5)" [ "$(changed_in a.h5)" = "step $n: epochs 1 -> 2" ]
check "in info" grep -q "^  changed  *step $n: epochs 1 -> 2$" <("$unroll" info a.h5)
check "with a schema" quiet 0 "$python" "$source_dir/tests/story/open_with_tools.py" a.h5
check "and the log beside it" same_run a.h5
check "which has it where it happened" awk -v n="$n" -F '"step": ' '/"change"/ { found = before <= n; getline; exit } { before = $2 + 0 }
  END { exit !(found && $2 + 0 > n) }' a.jsonl
check "in words" grep -qF "{\"kind\": \"change\", \"step\": $n, \"changed\": \"epochs 1 -> 2\"}" a.jsonl
cp a.h5 kept.h5
check "the same words once more" train 0 2 --resume --change -o a.h5 --epochs 2
check "leave it alone" cmp a.h5 kept.h5

# ------------------------------------------------------------ what has no updates left
check "a total that has passed" train 2 2 --resume --change -o a.h5 --epochs 1
check "says so" grep -q -- "--change: a.h5 stands after step $((2 * n)), and with --epochs 1 the run ends after step $n; legal is a larger --epochs" err
check "a rate alone for a finished run" train 2 1 --resume --change -o a.h5 --lr 1e-4
check "says so" grep -q 'legal is a larger --epochs' err
check "another model" train 2 1 --resume --change -o a.h5 --hidden 25
check_not "for which --change is no way" grep -q -- --change err
check "a new run" train 2 1 --change -o b.h5 --lr 1e-4
check "has nothing to change" grep -q -- '--change needs --resume' err
check "nothing is written" cmp a.h5 kept.h5

# ----------------------------------------------------------------- several, and the schedule
check "a second change" train 0 2 --resume --change -o a.h5 --epochs 4 --schedule cosine --lr 1e-3 --clip 0.5
check "on record: $(changed_in a.h5)" [ "$(changed_in a.h5)" = "step $n: epochs 1 -> 2
step $((2 * n)): epochs 2 -> 4, lr 0.002 -> 0.001, schedule constant -> cosine, clip 1 -> 0.5" ]
cat >rates.py <<'PYTHON'
import math
import h5py
run = h5py.File("a.h5")["metrics/train"]
half, found = run["step"][-1] / 2, 0
for step, rate in zip(run["step"], run["learning_rate"]):
    # of the last step of the interval, of which the first is number 0
    expected = 2e-3 if step <= half else 1e-3 / 2 * (1 + math.cos(math.pi * (step - 1) / (2 * half)))
    assert abs(rate - expected) < 1e-12, (step, rate, expected)
    found += step > half
assert found > 10
PYTHON
check "the cosine is that of the new total" "$python" rates.py

# ------------------------------------------------------------------- after a divergence
diverges=(--valid-fraction 0 --hidden 32 --batch 16 --steps 32 --epochs 2 --activation relu --init orthogonal --optimizer sgd --schedule constant)
check "a run that diverges" train 1 1 -o d.h5 "${diverges[@]}" --lr 5 --clip 0 --checkpoint-every 3
check "names the way on" grep -q 'the last good checkpoint is d.h5; go on from it with --resume --change and a lower --lr or --clip 1$' err
check "which is one" train 0 2 --resume --change -o d.h5 --lr 0.1 --clip 1
check "without a warning" [ "$(grep -c warning err)" = 0 ]
check "on record: $(changed_in d.h5)" grep -qx 'step [1-9][0-9]*: lr 5 -> 0.1, clip 0 -> 1' <(changed_in d.h5)
finish
