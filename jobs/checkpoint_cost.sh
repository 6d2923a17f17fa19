#!/bin/bash
# What a checkpoint costs: seconds and bytes for LSTMs of about 1, 10 and 100 million parameters with Adam, as a table.
#
#   jobs/checkpoint_cost.sh UNROLL [FOLDER]
#
# UNROLL is the program; the files go to a new folder in FOLDER (default: this one), whose file system decides most of it. Each
# model takes UPDATES small updates twice, with a checkpoint after each and with only the one at the end: the difference
# is theirs. `disk` is what dd takes for as many bytes, with fsync. `share` is that of a run that saves every ten minutes,
# the default.
#
#   UPDATES=5   of each run
#   HIDDEN="460 1550 4960"   units, for other sizes
set -euo pipefail

unroll=$(realpath "${1:?usage: checkpoint_cost.sh UNROLL [FOLDER]}")
work=$(mktemp -d "${2:-.}/checkpoint_cost.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
updates=${UPDATES:-5}
printf 'the quick brown fox jumps over the lazy dog, again and again\n%.0s' {1..50} >text

# train EVERY: seconds of the whole run, and the number of its checkpoints
train() {
  local begin end
  begin=$(date +%s.%N)
  "$unroll" train text --cell lstm --hidden "$hidden" --batch 1 --steps 2 --max-steps "$updates" --valid-fraction 0 \
    --checkpoint-every "$1" --overwrite -o run.h5 >log 2>&1
  end=$(date +%s.%N)
  echo "$begin $end $(grep -c '^checkpoint of step' log)"
}

echo "| parameters | bytes | seconds | disk | share |"
echo "| --- | --- | --- | --- | --- |"
for hidden in ${HIDDEN:-460 1550 4960}; do
  one=$(train 1000000)
  all=$(train 1)
  parameters=$("$unroll" info run.h5 | sed -n '1s/.*, \([0-9]*\) parameters$/\1/p')
  bytes=$(stat -c %s run.h5)
  begin=$(date +%s.%N)
  dd if=/dev/zero of=zeros bs=1M count="$bytes" iflag=count_bytes conv=fsync status=none
  disk=$(date +%s.%N)
  rm zeros
  echo "$one $all $begin $disk $parameters $bytes" | awk '{
    seconds = (($5 - $4) - ($2 - $1)) / ($6 - $3)
    printf "| %.3g M | %.4g MB | %.2f | %.2f | %.2f %% |\n", $9 / 1e6, $10 / 1e6, seconds, $8 - $7, 100 * seconds / 600
  }'
done
