#!/bin/bash
# Every version reads the run files of earlier ones: what they are, what they score and say, and it trains on.
#
#   ancestors.sh SOURCE UNROLL                    the files of this folder against the table `known`
#   ancestors.sh SOURCE UNROLL make VERSION       new ones and their lines of the table, into SOURCE/tests/ancestors
. "$(dirname "$0")/../story/lib.sh" "${@:1:2}"
folder=$source_dir/tests/ancestors
export OMP_NUM_THREADS=1
cp "$folder/text" . # the name by which the runs know it

# key KEY: of what --json says of a.h5
key() { tee json | sed -n "s/^ *\"$1\": \([0-9.e+-]*\),*$/\1/p" | head -n 1; }
loss() { "$unroll" eval --json a.h5 text | key loss; }

# facts: of a.h5 its step, its loss of the text, the loss of what it has become at the end of its training, and the hash
# of what it says most likely. Trains a.h5 to its end.
facts() {
  local step before
  step=$("$unroll" info --json a.h5 | key step) before=$(loss)
  "$unroll" sample a.h5 --temperature 0 --length 40 >sampled || return 1
  quiet 0 "$unroll" train --resume -o a.h5 --max-steps 0 || return 1
  "$unroll" info --finished a.h5 || return 1
  echo "$step $before $(loss) $(sha256sum <sampled | cut -c -16)"
}

# add NAME OPTION...: a run of 120 updates, before its end
add() {
  local name=$1
  shift
  PATH=$build_dir:$PATH quiet 0 unroll train text -o a.h5 --overwrite --batch 2 --steps 8 --log-every 10 \
    --valid-every 10 --max-steps 120 "$@" || exit 1
  gzip -9nc a.h5 >"$folder/$name.h5.gz"
  echo "$name $(facts)" >>"$folder/known"
}

if [ "${3:-}" = make ]; then
  # Between them all cells, optimizers and levels, several layers, gradient flow, a plateau.
  add "$4-rnn" --optimizer adam --lr 5e-2 --layers 2 --hidden 4 --epochs 3 --diagnose-every 25
  add "$4-lstm" --cell lstm --optimizer adam --lr 5e-2 --level word --hidden 3 --epochs 16
  add "$4-gru" --cell gru --optimizer sgd --lr 5 --clip 0 --level byte --hidden 3 --epochs 3 --schedule plateau --patience 1
  add "$4-mingru" --cell mingru --optimizer momentum --lr 0.2 --layers 2 --hidden 4 --epochs 3 --schedule step
  exit
fi

# close A B: within 1e-5 of B; CPUs without FMA round otherwise
close() { awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; exit !(d < 1e-5 && d > -1e-5) }'; }

while read -r name step before after said; do
  echo "$name"
  gunzip -c "$folder/$name.h5.gz" >a.h5
  rm -f a.jsonl a.best.h5
  facts >got || fail "$name: $(tail -n 3 out err)"
  read -r my_step my_before my_after my_said <got
  check "$name: step $my_step, was $step" [ "$my_step" = "$step" ]
  check "$name: loss $my_before, was $before" close "$my_before" "$before"
  check "$name: loss at the end $my_after, was $after" close "$my_after" "$after"
  check "$name: says '$(cat sampled)'" [ "$my_said" = "$said" ]
done <"$folder/known"
check "all files are in the table" [ "$(find "$folder" -name '*.h5.gz' | wc -l)" = "$(wc -l <"$folder/known")" ]
check "four or more" [ "$checks" -ge 17 ]
finish
