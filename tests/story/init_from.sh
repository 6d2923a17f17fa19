#!/bin/bash
# Training from given weights: they are what was given, with their vocabulary, on any number of ranks, and only once.
#
#   init_from.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
export OMP_NUM_THREADS=1
make_text 30000 >text
sed 's/river/fleuve/; s/stone/pierre ✻/; s/a/A/' text | head -c 20000 >other # with characters that `text` has not
make_text 6000 | sed 's/gate/porte/; s/s/S/' >valid

check "a model" quiet 0 "$unroll" train text -o base.h5 --cell lstm --layers 2 --hidden 24 --forget-bias 2 --max-vocab 30 --batch 16 --steps 20 \
  --epochs 1
cp base.h5 kept.h5

# same_weights RUN: weights and vocabulary of base.h5, bit for bit
cat >same_weights.py <<'PYTHON'
import sys
import h5py
base, run = h5py.File("kept.h5"), h5py.File(sys.argv[1])
def content(node):
    return node.asstr()[...].tolist() if node.dtype == object else node[...].tobytes()
def visit(name, node):
    if isinstance(node, h5py.Dataset):
        assert content(node) == content(run[name]), name
for group in "weights", "vocab":
    base[group].visititems(lambda name, node, group=group: visit(f"{group}/{name}", node))
PYTHON
# begins_with RUN SCORE: the first validation, before the first step, is the score of eval, but for the order of its sum
cat >begins_with.py <<'PYTHON'
import json
import sys
import h5py
valid = h5py.File(sys.argv[1])["metrics/valid"]
loss = json.load(open(sys.argv[2]))["loss"]
assert valid["step"][0] == 0 and abs(valid["loss"][0] - loss) <= 1e-14 * loss, (valid["loss"][0], loss)
PYTHON

# ----------------------------------------------- what was given is what is there
# A rate too small to move a weight: the weights of the file are those before the first update.
still=(--init-from base.h5 --valid valid --batch 16 --steps 20 --epochs 1)
for ranks in 1 2 4; do
  check "no step on $ranks" quiet 0 mpirun -n $ranks "$unroll" train other "${still[@]}" -o still$ranks.h5 --optimizer sgd --lr 1e-30 --max-steps 1
  check "the weights and their vocabulary on $ranks" "$python" same_weights.py still$ranks.h5
  check "40 steps on $ranks" quiet 0 mpirun -n $ranks "$unroll" train other "${still[@]}" -o run$ranks.h5 --max-steps 40 --log-every 10 --valid-every 20
done
check "the same bits on 1, 2 and 4 ranks" same_run run1.h5 run2.h5 run4.h5
check "a row before the first step" grep -q '^valid step 0 ' out
"$unroll" eval base.h5 valid --streams 16 --json >score
check "which is the score of eval" "$python" begins_with.py run1.h5 score
check "unknown characters are <unk>" grep -q '^text: .*[0-9] for validation, [1-9][0-9]* of all unknown, vocabulary of 23$' err
check "options of the model come with it" [ "$("$unroll" info --json run1.h5 | "$python" -c 'import json, sys
c = json.load(sys.stdin)["config"]; print(c["cell"], c["layers"], c["hidden"], c["forget-bias"], c["max-vocab"], c["init-from"])')" = "lstm 2 24 2.0 30 base.h5" ]
check "the file is on record" [ "$("$unroll" info --json run1.h5 | "$python" -c 'import json, sys
p = json.load(sys.stdin)["provenance"]; print(p["init_sha256"], "", p["init_file"])')" = "$(sha256sum base.h5)" ]
check "and untouched" cmp base.h5 kept.h5
check "the file opens with other tools" quiet 0 "$python" "$source_dir/tests/story/open_with_tools.py" run1.h5

# ------------------------------------------------------------------------ only once
mv base.h5 gone.h5
check "it goes on without that file" quiet 0 mpirun -n 2 "$unroll" train --resume -o run1.h5 --max-steps 60
check "and by the same words" quiet 0 "$unroll" train other "${still[@]}" --resume -o run1.h5 --max-steps 80 --log-every 10 --valid-every 20
mv gone.h5 base.h5
check "a run in one part" quiet 0 "$unroll" train other "${still[@]}" -o whole.h5 --max-steps 80 --log-every 10 --valid-every 20
check "has the same bits" same_run whole.h5 run1.h5
check "--resume without a run file begins with it" quiet 0 "$unroll" train other "${still[@]}" --resume -o anew.h5 --max-steps 1 --optimizer sgd --lr 1e-30
check "and has its weights" "$python" same_weights.py anew.h5

# -------------------------------------------------------------------------- refused
for option in "hidden 25" "layers 1" "cell rnn" "level word" "forget-bias 1" "max-vocab 0" "init orthogonal" lowercase; do
  # shellcheck disable=SC2086 # words
  check "--$option" quiet 2 mpirun -n 2 "$unroll" train other --init-from base.h5 -o no.h5 --$option
  check "says so in a line" [ "$(grep -c -- "^unroll: error: --${option%% *} .*: the model of --init-from base.h5 has .*; leave it out$" err)" = 1 ]
done
check "the same values" quiet 0 "$unroll" train other "${still[@]}" -o yes.h5 --hidden 24 --cell lstm --max-vocab 30 --max-steps 1
check "no such file" quiet 2 "$unroll" train other --init-from none.h5 -o no.h5
check "names it" grep -q '^unroll: error: none.h5: cannot open the run file' err
check "a text" quiet 2 "$unroll" train other --init-from text -o no.h5
check "names it" grep -q '^unroll: error: text: is not an HDF5 file' err
check "no text" quiet 2 "$unroll" train --init-from base.h5 -o no.h5
check "says so" grep -q '^unroll: error: no text to train on' err
check "over itself" quiet 2 "$unroll" train other --init-from base.h5 -o base.h5 --overwrite
check "says so" grep -q '^unroll: error: base.h5: is read, and the run would write it: the run file' err
check "other weights on resume" quiet 2 "$unroll" train other --resume -o run1.h5 --init-from still1.h5
check "says so" grep -q -- '--init-from still1.h5: the run to resume has base.h5' err
check "nothing was written" [ ! -e no.h5 ]
check "nor was the given file" cmp base.h5 kept.h5

# UTF-8 that is none is refused as by eval
printf '%s\xff' "$(<other)" >bad
check "malformed text" quiet 2 "$unroll" train bad --init-from base.h5 -o no.h5
mv err by_train
quiet 2 "$unroll" eval base.h5 bad
check "is refused as by eval" cmp by_train err
finish
