# shellcheck shell=bash disable=SC2034 # sourced
# What the oracle's scripts share; sourced by bash with the words SOURCE PROGRAM, works as the stories do.
. "$(dirname "${BASH_SOURCE[0]}")/../story/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
oracle=$source_dir/tests/oracle/rnn_numpy.py

make_text 6000 >text
make_text 9000 | tail -c 2000 | sed 's/the/thé/g; s/stone/quarz/g' >other # with what was never seen
# Lines of very different lengths, some of them empty.
make_text 30000 | awk '{ printf "%s", $0; if (NR % 13 == 0 || NR % 17 < 5) print ""; if (NR % 29 == 0) print "" }' >lines

# ask WORD...: a command of the oracle, its words and its status. One process for all: to start takes longer than to compute.
ask() {
  local line
  if [ -z "${questions-}" ]; then
    coproc "$python" "$oracle" serve 2>&1
    exec {questions}>&"${COPROC[1]}" {answers}<&"${COPROC[0]}"
  fi
  echo "$*" >&"$questions"
  while IFS= read -r line <&"$answers"; do
    if [[ $line = "status "* ]]; then return "${line#status }"; fi
    echo "$line"
  done
  return 1
}

# train TEXT OPTION...: run.h5, and no older one where that fails
train() {
  rm -f run.h5 run.jsonl run.best.h5
  quiet 0 "$unroll" train "$1" -o run.h5 "${@:2}"
}

# loss_of TEXT STREAMS: what the program says, of run.h5
loss_of() { "$unroll" eval --json --streams "$2" run.h5 "$1" | sed -n 's/.*"loss": \([0-9.e+-]*\).*/\1/p'; }

# score STREAMS: what the program says of `other` agrees with the oracle
score() { ask eval run.h5 other "$1" "$(loss_of other "$1")"; }

# adapt RATE DECAY STEPS CACHE THETA LAMBDA: the same of dynamic evaluation and a cache, beside the loss of the model
adapt() {
  local options=()
  if [ "$1" != 0 ]; then options+=(--dynamic-lr "$1" --dynamic-decay "$2" --dynamic-steps "$3"); fi
  if [ "$4" != 0 ]; then options+=(--cache "$4" --cache-theta "$5" --cache-lambda "$6"); fi
  "$unroll" eval --json "${options[@]}" run.h5 other >adapted.json &&
    ask adapt run.h5 other "$(sed -n 's/^ .*"loss": \([0-9.e+-]*\).*/\1/p' adapted.json | tail -n 1)" "$@"
}

shape=(--batch 6 --shards 2 --steps 7)
from=text

# step N OPTION...: the update from step N to N + 1 agrees with the oracle; of the text `text`, or $from
step() {
  local n=$1
  shift
  local options=(--hidden 13 "${shape[@]}" --valid-fraction 0 --schedule constant --log-every 1 "$@")
  "$unroll" train "$from" --overwrite -o before.h5 --max-steps "$n" "${options[@]}" >said 2>&1 &&
    cp before.h5 after.h5 &&
    "$unroll" train "$from" --resume -o after.h5 --max-steps $((n + 1)) >said 2>&1 &&
    ask step before.h5 after.h5 "$from" >said 2>&1
  local status=$?
  cat said
  return $status
}

# Was the last step longer than 256? Beyond that states are recomputed from kept ones.
long() { [ "$(sed -n 's/.*: \([0-9]*\) steps.*/\1/p' said)" -gt 256 ]; }
