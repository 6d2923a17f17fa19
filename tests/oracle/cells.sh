#!/bin/bash
# The gated cells against the model in NumPy, as rnn.sh does it: the loss of a text, and single updates.
#
#   cells.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"

# is_cell CELL LAYERS: of run.h5, as its attribute and the shapes of its tensors say
# shellcheck disable=SC2317 # called by check
is_cell() {
  "$python" - "$@" <<'PY'
import sys
import h5py
name, layers = sys.argv[1], int(sys.argv[2])
G = {"lstm": 4, "gru": 3, "mingru": 2}[name]
with h5py.File("run.h5") as run:
    assert run["config"].attrs["cell"].decode() == name
    V, H = run["weights/output/W_qh"].shape
    for l in range(layers):
        expected = {"W_xh": (G * H, H if l else V), "b_h": (G * H,)}
        if name != "mingru":
            expected["W_hh"] = (G * H, H)
        if name == "gru":
            expected["b_hn"] = (H,)
        assert {tensor: data.shape for tensor, data in run[f"weights/layer{l}"].items()} == expected
    assert f"layer{layers}" not in run["weights"]
PY
}

sgd=(--optimizer sgd --lr 0.1 --clip 0)
adam=(--optimizer adam --epsilon 1e-4 --clip 0.1)
for cell in lstm gru mingru; do
  for layers in 1 3; do
    model=(--cell "$cell" --layers "$layers")
    shape=(--batch 6 --shards 2 --steps 7)
    check "training, ${model[*]}" train text "${model[@]}" --hidden 21 --batch 8 --steps 9 --epochs 3 --lr 5e-3
    check "the file names the cell, ${model[*]}" is_cell "$cell" "$layers"
    check "loss, ${model[*]}" score 1
    check "loss in streams, ${model[*]}" score 5
    if [ "$layers" = 3 ]; then check "dynamic evaluation, ${model[*]}" adapt 0.1 0.02 8 0 0 0; fi
    check "gradient descent, ${model[*]}" step 9 "${model[@]}" --optimizer sgd --lr 0.3 --clip 0
    check "Adam, clipped, ${model[*]}" step 12 "${model[@]}" "${adam[@]}"
    check "an embedding, ${model[*]}" step 9 "${model[@]}" --embedding 10 --optimizer sgd --lr 0.3 --clip 0
    masks=(--dropout-embedding 0.2 --dropout-words 0.2)
    if [ "$cell" != mingru ]; then masks+=(--dropout-weights 0.4); fi
    check "regularised, ${model[*]}" step 9 "${model[@]}" --embedding 10 --dropout 0.3 --dropout-kind window "${masks[@]}" \
      --penalty-activation 2 --penalty-change 1 --optimizer sgd --lr 0.3 --clip 0
    check "tied, ${model[*]}" step 9 "${model[@]}" --embedding 13 --tied --optimizer sgd --lr 0.3 --clip 0

    # What crosses the edge of a segment, a piece or a line is the whole state.
    shape=(--batch 6 --shards 2)
    check "a stride, ${model[*]}" step 3 "${model[@]}" --steps 11 --stride 4 "${sgd[@]}"
    check "randomized, ${model[*]}" step 6 "${model[@]}" --bptt randomized --steps 6 "${sgd[@]}"
  done
  model=(--cell "$cell" --layers 2)
  check "momentum, bytes, $cell" step 5 "${model[@]}" --steps 7 --level byte --optimizer momentum --lr 0.1 --clip 0.3
  check "full, a whole text, $cell" step 1 "${model[@]}" --bptt full --epochs 4 "${sgd[@]}"
  check "it is long" long
  was_long=no
  for n in 1 2 3 4; do
    check "randomized, long, step $n, $cell" step $n "${model[@]}" --bptt randomized --steps 300 --epochs 3 "${sgd[@]}"
    if long; then was_long=yes; fi
  done
  check "a piece was long" [ $was_long = yes ]

  shape=(--batch 1 --steps 25)
  check "a window of a random partition, $cell" step 11 "${model[@]}" --partition random "${sgd[@]}"

  from=lines
  shape=(--batch 12 --shards 6)
  for n in 1 6; do
    check "lines, step $n, $cell" step $n "${model[@]}" --bptt full --sequences line --epochs 3 "${sgd[@]}"
  done
  # One after the other, so that a state left over from the line before would be seen.
  check "training on lines, $cell" train lines --valid lines "${model[@]}" --bptt full --sequences line --hidden 21 --batch 1 \
    --max-steps 80 --lr 1e-2 --valid-every 80
  check "validation of lines, $cell" ask valid run.h5 lines
  from=text
done

# forget FILE BIAS: the forget blocks, and they alone, begin with it
# shellcheck disable=SC2317 # called by check
forget() {
  "$python" - "$@" <<'PY'
import sys
import h5py
import numpy as np
with h5py.File(sys.argv[1]) as run:
    for l in range(2):
        i, f, g, o = np.split(run[f"weights/layer{l}/b_h"][...], 4)
        assert np.all(f == float(sys.argv[2])), f
        assert all(len(np.unique(block)) == len(block) for block in (i, g, o)), "the others are drawn"
PY
}
still=(--cell lstm --layers 2 --hidden 9 --max-steps 1 --optimizer sgd --lr 1e-30)
check "an LSTM that does not move" quiet 0 "$unroll" train text -o one.h5 "${still[@]}"
check "forgets little at first" forget one.h5 1
check "or as little as was asked for" quiet 0 "$unroll" train text -o more.h5 "${still[@]}" --forget-bias 2.5
check "by its forget blocks" forget more.h5 2.5

finish
