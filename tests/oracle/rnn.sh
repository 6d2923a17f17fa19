#!/bin/bash
# The program against an independent model in NumPy: the loss of a text, and single updates.
#
#   rnn.sh SOURCE UNROLL
. "$(dirname "$0")/../story/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
oracle=$source_dir/tests/oracle/rnn_numpy.py

make_text 6000 >text
make_text 9000 | tail -c 2000 | sed 's/the/thé/g; s/stone/quarz/g' >other # with what was never seen

# score STREAMS: what the program says of `other` agrees with the oracle
score() {
  local loss
  loss=$("$unroll" eval --json --streams "$1" run.h5 other | sed -n 's/.*"loss": \([0-9.e+-]*\).*/\1/p')
  "$python" "$oracle" eval run.h5 other "$1" "$loss"
}

shape=(--batch 6 --shards 2 --steps 7)
from=text

# step N OPTION...: the update from step N to N + 1 agrees with the oracle; of the text `text`, or $from
step() {
  local n=$1
  shift
  local options=(--hidden 13 "${shape[@]}" --valid-fraction 0 --schedule constant --log-every 1 "$@")
  "$unroll" train "$from" --overwrite -o before.h5 --max-steps "$n" "${options[@]}" >/dev/null 2>&1 &&
    cp before.h5 after.h5 &&
    "$unroll" train "$from" --resume -o after.h5 --max-steps $((n + 1)) >/dev/null 2>&1 &&
    "$python" "$oracle" step before.h5 after.h5 "$from" >said 2>&1
  local status=$?
  cat said
  return $status
}

check "the oracle's own gradients" "$python" "$oracle" self

for layers in 1 2 3; do
  for activation in tanh relu; do
    model=(--layers "$layers" --activation "$activation")
    "$unroll" train text -o run.h5 --overwrite "${model[@]}" --hidden 21 --batch 8 --steps 9 --epochs 3 \
      --lr 5e-3 >/dev/null 2>&1
    check "loss, ${model[*]}" score 1
    check "loss in streams, ${model[*]}" score 5

    check "gradient descent, ${model[*]}" step 9 "${model[@]}" --optimizer sgd --lr 0.3 --clip 0
    check "clipped, ${model[*]}" step 9 "${model[@]}" --optimizer sgd --lr 0.3 --clip 0.02
    check "Adam, ${model[*]}" step 12 "${model[@]}" --optimizer adam --lr 3e-3 --epsilon 1e-4 --clip 0
    check "Adam, clipped, ${model[*]}" step 12 "${model[@]}" --optimizer adam --epsilon 1e-5 --clip 0.1
  done
done
check "momentum" step 5 --optimizer momentum --lr 0.1 --momentum 0.8 --clip 0.3
# With more tokens in the vocabulary than in the window most rows of W_xh have no gradient.
for optimizer in "sgd --lr 0.3" "momentum --lr 0.1" "adam --epsilon 1e-4"; do
  check "bytes, $optimizer" step 7 --level byte --clip 0.2 --optimizer $optimizer
  check "bytes, not clipped, $optimizer" step 8 --level byte --layers 2 --clip 0 --optimizer $optimizer
done
check "the second step" step 1 --optimizer adam --clip 0 --epsilon 1e-5
check "the first step of an epoch, from the zero state" step 142 --optimizer sgd --lr 0.1 --clip 1

shape=(--batch 1 --steps 25)
check "a window of a random partition" step 11 --partition random --layers 2 --optimizer sgd --clip 0
check "another one" step 240 --partition random --optimizer sgd --clip 0

# ------------------------------------------------- strides, full and randomized
# Beyond 256 steps states are recomputed from kept ones.
long() { [ "$(sed -n 's/.*: \([0-9]*\) steps.*/\1/p' said)" -gt 256 ]; }

sgd=(--optimizer sgd --lr 0.1 --clip 0)
shape=(--batch 6 --shards 2)
for n in 1 2 3 60; do # windows that begin the text, are cut off there, follow one of those, and others
  check "a stride, step $n" step $n --steps 11 --stride 4 --layers 2 "${sgd[@]}"
done
check "a stride of one step" step 9 --steps 5 --stride 1 --activation relu "${sgd[@]}"

check "full, a whole text" step 1 --bptt full --epochs 4 --layers 2 "${sgd[@]}"
check "it is long" long
was_long=no
for n in 1 2 3 4; do
  check "randomized, step $n" step $n --bptt randomized --steps 300 --layers 2 --epochs 3 "${sgd[@]}"
  if long; then was_long=yes; fi
done
check "a piece was long" [ $was_long = yes ]
for n in 5 40; do
  check "randomized, step $n" step $n --bptt randomized --steps 6 --activation relu --optimizer adam --epsilon 1e-4 --clip 0.1
done
check "a first step cut off everywhere" step 3 --bptt randomized --steps 1 "${sgd[@]}"

make_text 30000 | awk '{ printf "%s", $0; if (NR % 13 == 0 || NR % 17 < 5) print ""; if (NR % 29 == 0) print "" }' >lines
from=lines
shape=(--batch 12 --shards 6)
lines=(--bptt full --sequences line)
was_long=no
for n in 1 6 15; do
  check "lines, step $n" step $n "${lines[@]}" --layers 2 --epochs 3 "${sgd[@]}"
  if long; then was_long=yes; fi
done
check "a line was long" [ $was_long = yes ]
check "lines, ReLU, clipped" step 3 "${lines[@]}" --activation relu --optimizer adam --epsilon 1e-4 --clip 0.1
check "words in lines" step 3 "${lines[@]}" --level word "${sgd[@]}"
shape=(--batch 4 --shards 1)
check "paragraphs" step 1 --bptt full --sequences paragraph --layers 2 "${sgd[@]}"
# One after the other, so that a state left over from the line before would be seen.
"$unroll" train lines --valid lines -o run.h5 --overwrite "${lines[@]}" --hidden 21 --batch 1 --max-steps 80 --lr 1e-2 \
  --valid-every 80 >/dev/null 2>&1
check "validation of lines" "$python" "$oracle" valid run.h5 lines
from=text

"$unroll" train text -o run.h5 --overwrite --level word --hidden 17 --batch 4 --steps 5 --epochs 2 >/dev/null 2>&1
check "loss of words" score 1
check "loss of words in streams" score 3

finish
