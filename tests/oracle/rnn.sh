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

# step N OPTION...: the update from step N to N + 1 agrees with the oracle
step() {
  local n=$1
  shift
  local options=(--hidden 13 "${shape[@]}" --valid-fraction 0 --schedule constant --log-every 1 "$@")
  "$unroll" train text --overwrite -o before.h5 --max-steps "$n" "${options[@]}" >/dev/null 2>&1 &&
    cp before.h5 after.h5 &&
    "$unroll" train text --resume -o after.h5 --max-steps $((n + 1)) >/dev/null 2>&1 &&
    "$python" "$oracle" step before.h5 after.h5 text
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

"$unroll" train text -o run.h5 --overwrite --level word --hidden 17 --batch 4 --steps 5 --epochs 2 >/dev/null 2>&1
check "loss of words" score 1
check "loss of words in streams" score 3

finish
