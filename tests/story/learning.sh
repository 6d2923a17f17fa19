#!/bin/bash
# Learning itself: on texts of known entropy the loss comes down to the entropy, and not below it.
#
#   learning.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(command -v python3) || skip "no python3"
sources=$source_dir/tests/story/sources.py

# train FILE TEXT VALID OPTION...: its last validation loss is in $loss
train() {
  local file=$1 text=$2 valid=$3
  shift 3
  OMP_NUM_THREADS=1 mpirun -n 2 "$unroll" train "$text" --valid "$valid" -o "$file" --overwrite "$@" >out 2>&1 || {
    cat out
    return 1
  }
  loss=$(sed -n 's/^valid .* loss \([0-9.]*\) .*/\1/p' out | tail -n 1)
}

# within LOSS ENTROPY OWN ERROR ABOVE: at most ABOVE over the entropy; below it by no more than three standard errors
# of this text, and no more than that below what the source itself loses on this text
within() {
  echo "loss $1, entropy $2, the source on this text $3 +- $4"
  awk -v loss="$1" -v entropy="$2" -v own="$3" -v error="$4" -v above="$5" \
    'BEGIN { exit !(loss > 0 && loss < entropy + above && loss > entropy - 3 * error && loss > own - 3 * error) }'
}

scored() { "$unroll" eval --json "$1" "$2" | sed -n 's/.*"loss": \([0-9.e+-]*\).*/\1/p'; }

# ----------------------------------------- a chain that looks two letters back
check "a text" "$python" "$sources" markov 1 1200000 text >/dev/null
read -r entropy own error < <("$python" "$sources" markov 2 200000 valid)
markov=(--hidden 64 --batch 64 --steps 32 --lr 1e-2)
check "train" train run.h5 text valid "${markov[@]}" --epochs 4
check "the loss comes down to the entropy" within "$loss" "$entropy" "$own" "$error" 0.02
check "so does the loss of one pass" within "$(scored run.h5 valid)" "$entropy" "$own" "$error" 0.02
check "train a little" train little.h5 text valid "${markov[@]}" --epochs 4 --max-steps 100 --valid-every 100
check_not "a hundred steps are not enough" within "$loss" "$entropy" "$own" "$error" 0.02

# ------------------ a letter to be kept in mind across the string inside (Reber)
# Who forgets it loses ln 2 a string more, 0.053 a letter.
check "strings" "$python" "$sources" reber 1 60000 text >/dev/null
read -r entropy own error < <("$python" "$sources" reber 2 10000 valid)
check "train" train run.h5 text valid --hidden 48 --batch 32 --steps 40 --lr 4e-3 --epochs 6
check "the letter is kept in mind" within "$loss" "$entropy" "$own" "$error" 0.01
check "train a little" train little.h5 text valid --hidden 48 --batch 32 --steps 40 --lr 4e-3 --epochs 1 \
  --max-steps 200 --valid-every 200
check_not "it is not at first" within "$loss" "$entropy" "$own" "$error" 0.01

finish
