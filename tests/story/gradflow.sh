#!/bin/bash
# `unroll gradflow` as people run it: the page, JSON and the file against NumPy, ranks and threads, mistakes.
#
#   gradflow.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
oracle=("$python" "$source_dir/tests/story/gradflow.py")

make_text 20000 >text
make_text 3000 | sed 's/stone/strönd/g' >other # with what was never seen

# --------------------------------------------------------- against NumPy
for model in "--hidden 10 --layers 2 --lr 1e-2" "--hidden 13 --activation relu"; do
  # shellcheck disable=SC2086 # words are meant
  check "train $model" quiet 0 "$unroll" train text -o run.h5 --overwrite --batch 8 --steps 16 --epochs 2 $model
  plan=(--lags 23 --positions 20 --context 15)
  check "measure, $model" quiet 0 "$unroll" gradflow run.h5 other "${plan[@]}" --json -o flow.h5 --overwrite
  mv out one.json
  check "the numbers, $model" "${oracle[@]}" measure run.h5 other one.json flow.h5
  check "the schema, $model" "${oracle[@]}" schema flow.h5

  # ------------------------------------------------- the same for all ranks
  for item in 1:3:avx2 2:1: 3:2: 8:1:; do
    IFS=: read -r ranks threads isa <<<"$item"
    if [ "$isa" = avx2 ] && ! grep -q '\bavx2\b' /proc/cpuinfo; then isa=; fi
    check "$ranks ranks, $threads threads" quiet 0 env OMP_NUM_THREADS="$threads" ${isa:+UNROLL_ISA=$isa} \
      mpirun -n "$ranks" "$unroll" gradflow run.h5 other "${plan[@]}" --json
    check "$ranks ranks, $threads threads: the same digits, $model" cmp one.json out
  done
done
check "another number of positions" quiet 0 "$unroll" gradflow run.h5 other --lags 23 --positions 21 --context 15 --json
check_not "is another result" cmp -s one.json out

# -------------------------------------------------------- gated cells
for cell in lstm gru mingru; do
  check "train $cell" quiet 0 "$unroll" train text -o $cell.h5 --cell $cell --batch 8 --steps 16 --hidden 11 --layers 2 --max-steps 40
  check "the page, $cell" quiet 0 "$unroll" gradflow $cell.h5 other --lags 9 --positions 5
  check "measure $cell" quiet 0 "$unroll" gradflow $cell.h5 other --lags 23 --positions 20 --json -o $cell.flow.h5
  mv out $cell.json
  check "the numbers, $cell" "${oracle[@]}" measure $cell.h5 other $cell.json $cell.flow.h5
  check "the schema, $cell" "${oracle[@]}" schema $cell.flow.h5
  check "two ranks, $cell" quiet 0 mpirun -n 2 "$unroll" gradflow $cell.h5 other --lags 23 --positions 20 --json
  check "the same digits, $cell" cmp $cell.json out
done

# Large enough for LAPACK to use its threads, if it had its way.
check "train 150 units" quiet 0 "$unroll" train text -o wide.h5 --batch 4 --steps 8 --hidden 150 --max-steps 2
check "LAPACK told to use one thread" quiet 0 env OPENBLAS_NUM_THREADS=1 "$unroll" gradflow wide.h5 other --lags 5 --json
mv out one.json
check "LAPACK told to use two" quiet 0 env OPENBLAS_NUM_THREADS=2 "$unroll" gradflow wide.h5 other --lags 5 --json
check "the same digits" cmp one.json out

# ----------------------------------------------------------- the page
check "the page" quiet 0 "$unroll" gradflow run.h5 text --lags 130 --positions 8
check "its lags" [ "$(awk '$1 == 0 { printf "%s ", $2 }' out)" = "0 1 2 5 10 20 50 100 130 " ]
check "one line of facts" [ "$(grep -c '^layer 0  spectral_radius [0-9.]*  spectral_norm [0-9.]*  lyapunov [-0-9.]*  derivative [0-9.]*$' out)" = 1 ]
check "one line of verdict" grep -Eq '^layer 0  (vanishing|stable|exploding): growth [0-9.e-]+ per step' out
check "nothing on standard error but advice" [ "$(grep -vc '^unroll: warning' err)" = 0 ]

# -------------------------------------------------------- known models
check "a model to change" quiet 0 "$unroll" train text -o linear.h5 --activation relu "${tiny[@]}" --max-steps 1
while read -r scale verdict; do
  check "W_hh = $scale rotation" "${oracle[@]}" construct linear.h5 "$scale"
  check "measure it" quiet 0 "$unroll" gradflow linear.h5 other --lags 12 --positions 5 --context 3 --json
  check "growth $scale is $verdict" "${oracle[@]}" verdict out "$scale" "$verdict"
done <<EOT
0.5 vanishing
1 stable
2 exploding
EOT
check "states that overflow" quiet 1 "$unroll" gradflow linear.h5 other --lags 100 --positions 5
check "are told, with a remedy" grep -q 'not finite.*--lags.*--context' err

# -------------------------------------------------------------- mistakes
refused() { # PART COMMAND...: status 2, one line that has the part
  local part=$1
  shift
  check "$*: status" quiet 2 "$@"
  check "$*: $(cat err)" grep -q -- "^unroll: error: .*$part" err
  check "$*: one line" [ "$(grep -vc '^unroll: warning' err)" = 1 ]
}
gradflow=("$unroll" gradflow)
cp flow.h5 kept.h5
refused "flow.h5.*--overwrite" "${gradflow[@]}" run.h5 text -o flow.h5
refused "none/such" "${gradflow[@]}" run.h5 text -o none/such
cp run.h5 kept_run.h5
refused "the run file itself" "${gradflow[@]}" run.h5 text -o ./run.h5 --overwrite
refused "the run file itself" "${mpirun_quiet[@]}" -n 2 "${gradflow[@]}" run.h5 text -o "$work/run.h5" --overwrite
refused none_such "${gradflow[@]}" run.h5 none_such
refused "not.*unroll\|not one of ours\|unroll-gradflow" "${gradflow[@]}" flow.h5 text
refused "1 to 100000" "${gradflow[@]}" run.h5 text --lags 0
head -c 100 text >short
refused "largest legal --lags is 79" "${gradflow[@]}" run.h5 short --positions 20
refused "largest --positions 49" "${gradflow[@]}" run.h5 short --positions 60 --lags 50
check "the largest legal lags are legal" quiet 0 "${gradflow[@]}" run.h5 short --positions 20 --lags 79
refused "too few" "${gradflow[@]}" run.h5 short --positions 20 --lags 80
check "a short text has less context" quiet 0 "${gradflow[@]}" run.h5 short --positions 20 --lags 70 --json
check "as much as lets all positions differ" grep -q '"context": 9,' out
check "the largest legal positions are legal" quiet 0 "${gradflow[@]}" run.h5 short --positions 49 --lags 50
refused "too few" "${gradflow[@]}" run.h5 short --positions 50 --lags 50
check "nothing was written" cmp flow.h5 kept.h5
check "nothing was written over the run" cmp run.h5 kept_run.h5
if [ -w /dev/full ]; then
  "${gradflow[@]}" run.h5 text --lags 3 --positions 2 >/dev/full 2>err
  check "a full disk is told by the exit status" [ $? = 1 ]
fi

# -------------------------------------------------------------- pictures
if "$python" -c 'import matplotlib' 2>/dev/null; then
  check "plot a flow" quiet 0 "$python" "$source_dir/jobs/plot" flow.h5
  check "a PNG" [ "$(head -c 4 flow.png | tail -c 3)" = PNG ]
  check "plot a run" quiet 0 "$python" "$source_dir/jobs/plot" run.h5 -o run.svg
  check "an SVG with the axes' names" grep -q 'gradient norm before clipping' run.svg
  for cell in lstm mingru; do
    check "plot the flow of $cell" quiet 0 "$python" "$source_dir/jobs/plot" $cell.flow.h5
  done
  check "plot a file that is neither" quiet 1 "$python" "$source_dir/jobs/plot" text
else
  echo "not checked: pictures (no matplotlib)"
fi
mkdir without
echo 'raise ImportError("No module named matplotlib")' >without/matplotlib.py
check "plot without matplotlib" quiet 1 env PYTHONPATH=without "$python" "$source_dir/jobs/plot" flow.h5
check "says what to install" grep -q 'apt-get install.*python3-matplotlib' err

finish
