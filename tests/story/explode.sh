# Exploding gradients: without clipping the run is stopped and says where, with it the same settings train.
. "$(dirname "$0")/lib.sh"
make_text 60000 >text.txt

train() { OMP_NUM_THREADS=2 "$unroll" train text.txt -o "$1" --valid-fraction 0 --hidden 32 --batch 16 --steps 32 --epochs 2 \
  --activation relu --init orthogonal --optimizer sgd --schedule constant --lr 5 --log-every 50 --log-format full "${@:2}" >log 2>errors; }

train plain.h5 --clip 0
check "without clipping the run fails" [ $? = 1 ]
check "by the rule, with the step and what may help" \
  grep -q '^unroll: error: step [0-9]*: 10 updates in a row had a loss or gradient that is not finite; .*lower --lr or --clip' errors
check "in one line" [ "$(grep -c '^unroll: error' errors)" = 1 ]
check "and leaves no run file" [ ! -e plain.h5 ]

# A checkpoint is good if the step from it had a finite loss. That of each step never is: the last was before the first bad one.
train each.h5 --clip 0 --checkpoint-every 1
check "a checkpoint without a finite loss is not called good" grep -q 'the loss of the last checkpoint is not finite either: each.h5; start again' errors
for command in "eval" "eval --json" "eval --per-line"; do
  # shellcheck disable=SC2086 # words
  check "$command: a loss that is not finite is no success" quiet 1 mpirun -n 2 "$unroll" $command each.h5 text.txt
  check "it says so in one line" [ "$(grep -c '^unroll: error: each.h5: the loss of the text is not finite' err)" = 1 ]
  [ "$command" != "eval --json" ] || check "nor is it good" grep -q '"loss": null' out
done
check "info of weights that are finite" quiet 0 "$unroll" info each.h5
check_not "has no word on that" grep -q finite,  out
train third.h5 --clip 0 --checkpoint-every 3
check "a good one is called so" grep -q 'the last good checkpoint is third.h5; go on from it with --resume --change and a lower --lr or --clip 1' errors
"$unroll" train text.txt -o third.h5 --resume >log 2>errors
check "it takes a good step" grep -q 'the last good checkpoint is third.h5; go on' errors

train clipped.h5 --clip 1
check "with clipping it trains" [ $? = 0 ]
check "the loss falls" awk '/^train/ { if (!first) first = $7; last = $7 } END { exit !(last < 0.8 * first && last < 2.5) }' log
check_not "no word of warning" grep -q warning errors
check "clipping was at work" awk '/^train/ && $13 < 1 { found = 1 } END { exit !found }' log
# A loss that is finite, but worse than to guess: the run ends as it was told to, with a line.
"$unroll" train text.txt -o guess.h5 --hidden 8 --batch 4 --steps 8 --epochs 1 --optimizer sgd --schedule constant --lr 30 >log 2>errors
check "a diverged run with a finite loss ends" [ $? = 0 ]
check "and says what it is" [ "$(grep -c '^unroll: warning: the loss of the last updates, .*, is worse than a uniform guess, ' errors)" = 1 ]

# Weights that are not finite: whoever would use them says so, and the page of the file can still be read.
python=$(find_python) || finish
"$python" - <<'PYTHON'
import h5py
with h5py.File("clipped.h5", "r+") as run:
    run["weights/layer0/W_hh"][3, 2] = float("nan")
PYTHON
"$python" - <<'PYTHON'
import h5py
with h5py.File("each.h5", "r+") as run:
    run["weights/layer0/W_hh"][...] = 1e38
    run["weights/output/W_qh"][...] = 1e38
PYTHON
check "huge weights draw nothing" quiet 1 "$unroll" sample each.h5
check "and it is said why: $(cat err)" grep -q '^unroll: error: scores of the tokens are not finite: .*train --keep' err
check "nothing is printed" [ ! -s out ]
for command in "eval clipped.h5 text.txt" "sample clipped.h5" "gradflow clipped.h5 text.txt" "train text.txt --resume -o clipped.h5"; do
  # shellcheck disable=SC2086 # words
  check "$command" quiet 2 mpirun -n 2 "$unroll" $command
  check "names the file and the cause" grep -q '^unroll: error: clipped.h5: its weights are not finite' err
done
check "info" quiet 0 "$unroll" info clipped.h5
check "says so" [ "$(grep -c '^weights: not all are finite' out)" = 1 ]
check "and for scripts" grep -q '"weights_finite": false' <("$unroll" info --json clipped.h5)
finish
