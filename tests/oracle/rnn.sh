#!/bin/bash
# The program against an independent model in NumPy: the loss of a text, and single updates.
#
#   rnn.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"

check "the oracle's own gradients" ask self

for layers in 1 3; do
  for activation in tanh relu; do
    model=(--layers "$layers" --activation "$activation")
    check "training, ${model[*]}" train text "${model[@]}" --hidden 21 --batch 8 --steps 9 --epochs 3 --lr 5e-3
    check "loss, ${model[*]}" score 1
    check "loss in streams, ${model[*]}" score 5

    check "gradient descent, ${model[*]}" step 9 "${model[@]}" --optimizer sgd --lr 0.3 --clip 0
    check "clipped, ${model[*]}" step 9 "${model[@]}" --optimizer sgd --lr 0.3 --clip 0.02
    check "Adam, ${model[*]}" step 12 "${model[@]}" --optimizer adam --lr 3e-3 --epsilon 1e-4 --clip 0
    check "Adam, clipped, ${model[*]}" step 12 "${model[@]}" --optimizer adam --epsilon 1e-5 --clip 0.1
  done
done
check "momentum, average" step 5 --average asgd --optimizer momentum --lr 0.1 --momentum 0.8 --clip 0.3
# With more tokens in the vocabulary than in the window most rows of W_xh have no gradient.
# shellcheck disable=SC2086 # an optimizer and its option
for optimizer in "sgd --lr 0.3" "momentum --lr 0.1" "adam --epsilon 1e-4"; do
  check "bytes, $optimizer" step 7 --level byte --clip 0.2 --optimizer $optimizer
  check "bytes, not clipped, $optimizer" step 8 --level byte --layers 2 --clip 0 --optimizer $optimizer
done
# Embeddings smaller and larger than the layer, in small vocabularies and in large ones.
for E in 7 30; do
  check "training, an embedding of $E" train text --embedding $E --layers 2 --hidden 21 --batch 8 --steps 9 --epochs 3 --lr 5e-3
  check "loss, an embedding of $E" score 1
  check "loss in streams, an embedding of $E" score 5
  check "dynamic evaluation, an embedding of $E" adapt 0.2 0.01 7 0 0 0
  check "an embedding of $E, momentum" step 5 --embedding $E --optimizer momentum --lr 0.1 --momentum 0.8 --clip 0.3
  for optimizer in "sgd --lr 0.3" "adam --epsilon 1e-4"; do
    # shellcheck disable=SC2086 # an optimizer and its option
    check "an embedding of $E, bytes, $optimizer" step 7 --embedding $E --level byte --layers 2 --clip 0.2 --optimizer $optimizer
  done
done
tied=(--embedding 13 --tied)
check "training, tied" train text --embedding 21 --tied --layers 2 --hidden 21 --batch 8 --steps 9 --epochs 3 --lr 5e-3
check "loss, tied" score 1
check "dynamic evaluation, tied" adapt 0.2 0 9 0 0 0
check "a cache" adapt 0 0 256 100 0.4 0.2
check "both" adapt 0.1 0.1 10 400 1 0.3
both=(run.h5 other --dynamic-lr 0.1 --cache 50)
check "on one rank" quiet 0 "$unroll" eval "${both[@]}"
check "the model's own figures come first" [ "$(head -n 1 out | cut -d ' ' -f 1-4)" = "$("$unroll" eval run.h5 other | cut -d ' ' -f 1-4)" ]
sed -n 's/ *tokens_per_second.*//; s/^with dynamic evaluation and a cache: //p' out >one
check "on three, of three threads" quiet 0 env OMP_NUM_THREADS=3 mpirun -n 3 "$unroll" eval "${both[@]}"
check "the same: $(cat one out)" cmp one <(sed -n 's/ *tokens_per_second.*//; s/^with dynamic evaluation and a cache: //p' out)
check "one of them alone, which is said" grep -q '^unroll: with dynamic evaluation and a cache a text is one stream: one rank scores it alone$' err
check "too high a rate" quiet 1 "$unroll" eval run.h5 other --dynamic-lr 1e39
check "is said: $(cat err)" grep -q 'the loss with dynamic evaluation is not finite: --dynamic-lr 1e+39 is too high' err
check "tied, momentum" step 5 "${tied[@]}" --optimizer momentum --lr 0.1 --momentum 0.8 --clip 0.3
for optimizer in "sgd --lr 0.3" "adam --epsilon 1e-4"; do
  # shellcheck disable=SC2086 # an optimizer and its option
  check "tied, bytes, $optimizer" step 7 "${tied[@]}" --level byte --layers 2 --clip 0.2 --optimizer $optimizer
done
# Decay reaches the rows without a gradient too, where plain sgd leaves them alone.
for optimizer in "sgd --lr 0.3" "momentum --lr 0.1" "adam --epsilon 1e-4 --lr 3e-3"; do
  # shellcheck disable=SC2086 # an optimizer and its option
  check "decay, bytes, $optimizer" step 7 --level byte --clip 0.2 --weight-decay 0.4 --average ema --average-decay 0.7 --optimizer $optimizer
done
# What training alone does to the model: masks of every purpose, penalties, smoothed labels.
regular=(--dropout 0.3 --label-smoothing 0.1 --penalty-activation 2 --penalty-change 1 --seed 5)
embedded=(--dropout-embedding 0.2 --dropout-words 0.2 --dropout-weights 0.4)
check "smoothed labels" step 9 --label-smoothing 0.2 --optimizer sgd --lr 0.3 --clip 0
check "regularised" step 9 --layers 3 "${regular[@]}" --dropout-kind window --optimizer sgd --lr 0.3 --clip 0
check "regularised, tied, bytes" step 7 --level byte --layers 2 "${tied[@]}" "${regular[@]}" "${embedded[@]}" --optimizer adam --epsilon 1e-4
check "training, skip" train text --skip --embedding 9 --layers 3 --hidden 21 --batch 8 --steps 9 --epochs 3 --lr 5e-3
check "loss, skip" score 1
check "skip" step 9 --layers 3 --skip --optimizer sgd --lr 0.3 --clip 0
check "skip, regularised" step 9 --cell lstm --layers 3 --skip "${regular[@]}" --optimizer sgd --lr 0.3 --clip 0
check "the second step" step 1 --optimizer adam --clip 0 --epsilon 1e-5
check "the first step of an epoch, from the zero state" step 142 --optimizer sgd --lr 0.1 --clip 1

shape=(--batch 1 --steps 25)
check "a window of a random partition" step 11 --partition random --layers 2 --optimizer sgd --clip 0
check "another one" step 240 --partition random --optimizer sgd --clip 0

# ------------------------------------------------- strides, full and randomized
sgd=(--optimizer sgd --lr 0.1 --clip 0)
shape=(--batch 6 --shards 2)
for n in 1 2 3 60; do # windows that begin the text, are cut off there, follow one of those, and others
  check "a stride, step $n" step $n --steps 11 --stride 4 --layers 2 "${sgd[@]}"
done
check "a stride, regularised" step 7 --steps 11 --stride 4 --layers 2 "${regular[@]}" "${sgd[@]}"
check "a stride, an offset" step 61 --steps 11 --stride 4 --offset random "${sgd[@]}"
for n in 1 2 50 130; do # the first epoch has some 90 windows
  check "windows of random lengths, step $n" step $n --windows random --offset random --steps 11 --layers 2 --weight-decay 0.02 "${sgd[@]}"
done
check "a stride of one step" step 9 --steps 5 --stride 1 --activation relu "${sgd[@]}"

check "full, a whole text" step 1 --bptt full --epochs 4 --layers 2 "${sgd[@]}"
check "it is long" long
check "full, regularised" step 1 --embedding 9 --bptt full --epochs 4 --layers 2 "${regular[@]}" "${embedded[@]}" "${sgd[@]}"
check "full, a whole text, an embedding" step 1 --embedding 9 --bptt full --epochs 4 --layers 2 "${sgd[@]}"
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
check "words in lines, tied" step 3 "${lines[@]}" "${tied[@]}" --level word "${sgd[@]}"
check "words in lines, an embedding" step 3 "${lines[@]}" --embedding 9 --level word "${sgd[@]}"
shape=(--batch 4 --shards 1)
check "paragraphs" step 1 --bptt full --sequences paragraph --layers 2 "${sgd[@]}"
# One after the other, so that a state left over from the line before would be seen.
check "training on lines" train lines --valid lines "${lines[@]}" --hidden 21 --batch 1 --max-steps 80 --lr 1e-2 --valid-every 80
check "validation of lines" ask valid run.h5 lines
from=text

check "training on words" train text --level word --hidden 17 --batch 4 --steps 5 --epochs 2
check "loss of words" score 1
check "loss of words in streams" score 3

finish
