#!/bin/bash
# Damaged and forged run files, of every cell, optimizer and level of text, given to every command that reads one: a clear
# error or a right result. mutate.py has what is done to them and what must come of it.
#
#   mutate.sh SOURCE UNROLL FAULT [COUNT [SEED]]    a failure names its seed: `1 SEED` repeats it
. "$(dirname "$0")/lib.sh" "$@"
count=${4:-40} seed=${5:-1}

make_text 6000 >small
mkdir seeds
for cell in rnn lstm gru mingru; do
  for optimizer in sgd momentum adam; do
    case $cell-$optimizer in
    *-sgd) options=(--level byte --layers 2) ;;
    *-momentum) options=(--level word --diagnose-every 4) ;;
    *) options=(--lowercase --partition random) ;;
    esac
    check "$cell, $optimizer" quiet 0 "$unroll" train small --cell $cell --optimizer $optimizer "${options[@]}" --hidden 4 --batch 4 \
      --steps 8 --max-steps 9 --log-every 3 --valid-every 4 -o seeds/$cell-$optimizer.h5
  done
done
rm -f seeds/*.jsonl seeds/*.best.h5
check "mutants" "$python" "$source_dir/tests/campaign/mutate.py" "$unroll" "$count" "$seed"
finish
