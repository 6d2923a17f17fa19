#!/bin/bash
# Pictures: runs with and without reports, validations and gradient flow, several in one picture; and gradient flow alone.
#
#   plot.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py"
"$python" -c 'import matplotlib' 2>/dev/null || skip "no matplotlib"
make_text 12000 >text

# holds PANELS FILE...: one figure of so many panels
holds() {
  check "a picture of ${*:2}" quiet 0 "$python" "$source_dir/tests/story/plot.py" "$source_dir/jobs/plot" "${@:2}"
  check "has $1 panels: $(cat out err)" grep -qx "$1 panels" out
}
train() { check "train $1" quiet 0 "$unroll" train text "${tiny[@]}" -o "$1" "${@:2}"; }

train all.h5 --log-every 9 --diagnose-every 60 --layers 2
train gated.h5 --log-every 9 --diagnose-every 90 --cell gru
train plain.h5 --log-every 30 --valid-fraction 0
train valid.h5 --max-steps 5 --valid-every 5
train once.h5 --log-every 5 --max-steps 5
train none.h5 --max-steps 5
mkdir a
cp plain.h5 a/all.h5
holds 5 all.h5
holds 3 plain.h5
holds 1 valid.h5
holds 3 once.h5
holds 5 all.h5 plain.h5 gated.h5 valid.h5 none.h5
holds 5 all.h5 a/all.h5
check "to a file" quiet 0 "$python" "$source_dir/jobs/plot" all.h5 plain.h5 -o both.svg
check "which has both names" grep -q '>plain, validation<\|plain, training' both.svg
check "nothing to draw" quiet 1 "$python" "$source_dir/jobs/plot" none.h5
check "is told" grep -q '^jobs/plot: none: nothing to draw' err
check "and nothing written" [ ! -e none.png ]

for cell in rnn mingru; do
  train $cell.h5 --cell $cell
  check "gradient flow of $cell" quiet 0 "$unroll" gradflow $cell.h5 text --lags 60 --positions 30 -o $cell.flow.h5
done
holds 3 rnn.flow.h5
holds 1 mingru.flow.h5
check "two kinds" quiet 1 "$python" "$source_dir/jobs/plot" rnn.h5 rnn.flow.h5
check "are refused: $(cat err)" grep -q '^jobs/plot: rnn.flow.h5: is no run file; legal are several runs' err
# a few positions with large gradients: the mean is far above its band
"$python" -c 'import h5py; f = h5py.File("rnn.flow.h5", "r+"); f["diagnostics/norm_mean"][...] *= 1e10'
holds 3 rnn.flow.h5
finish
