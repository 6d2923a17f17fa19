#!/bin/bash
# The same bits for every number of ranks and threads and on every instruction set with FMA.
#
#   contract.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
make_text 20000 | sed 's/stone/Straße/g' >text

need_fma

flow=(--diagnose-every 20) # not of lines

# train FILE RANKS THREADS ISA TEAM OPTION...
train() {
  local file=$1 ranks=$2 threads=$3 isa=$4 team=$5
  shift 5
  OMP_NUM_THREADS=$threads UNROLL_ISA=$isa UNROLL_TEAM=$team mpirun -n "$ranks" "$unroll" train text -o "$file" --overwrite \
    --log-every 7 --valid-every 20 "${flow[@]}" "$@" >out 2>&1 || {
    cat out
    return 1
  }
}

# Ranks, threads, which of the instruction sets and ranks that share memory: each number of each at least once.
cover=(1:3:1:1 2:2:1:1 4:1:0:4 8:1:1:8 8:2:0:2)

# contract OPTION...: one rank and one thread, and all of the cover
contract() {
  local files=() item ranks threads isa team
  check "train $*" train one.h5 1 1 "${isas[0]}" 1 "$@"
  for item in "${cover[@]}"; do
    IFS=: read -r ranks threads isa team <<<"$item"
    isa=${isas[$((isa % ${#isas[@]}))]}
    check "$ranks ranks in teams of $team, $threads threads, $isa: train $*" \
      train "$ranks-$threads.h5" "$ranks" "$threads" "$isa" "$team" "$@"
    files+=("$ranks-$threads.h5")
  done
  check "the same bits: $*" same_run one.h5 "${files[@]}"
}

contract --hidden 24 --batch 16 --steps 9 --max-steps 60
contract --hidden 33 --batch 32 --steps 12 --max-steps 40 --layers 2 --partition random --level word \
  --optimizer momentum --lr 0.05
contract --hidden 40 --batch 24 --shards 8 --steps 10 --max-steps 40 --layers 2 --activation relu --optimizer sgd \
  --lr 0.2 --clip 0.1 --lowercase --windows random --offset random
contract --level word --optimizer sgd --lr 0.5 --hidden 24 --batch 8 --steps 4 --max-steps 40 # few of the words at a time
contract --level word --optimizer sgd --lr 0.5 --hidden 24 --batch 8 --steps 4 --max-steps 40 --weight-decay 1e-2 --average asgd
contract --hidden 130 --batch 16 --steps 30 --max-steps 21 --partition random --init orthogonal

# Pieces longer than the 256 steps of a chunk, shards of three sequences, lines of unequal lengths.
contract --bptt full --hidden 24 --batch 24 --shards 8 --epochs 3 --layers 2 --label-smoothing 0.1 \
  --penalty-activation 2 --penalty-change 1
contract --bptt randomized --steps 150 --hidden 24 --batch 16 --epochs 2 --activation relu
contract --steps 12 --stride 5 --hidden 24 --batch 16 --max-steps 40
flow=()
contract --bptt full --sequences line --partition random --hidden 33 --batch 16 --max-steps 30

# Gated cells, each with each strategy somewhere, by rows and by columns.
flow=(--diagnose-every 20)
contract --cell lstm --hidden 130 --batch 16 --steps 9 --max-steps 30 --layers 2
flow=()
contract --cell lstm --bptt full --sequences line --hidden 33 --batch 16 --max-steps 30
contract --cell gru --bptt randomized --steps 150 --hidden 24 --batch 16 --epochs 2
contract --cell gru --level word --optimizer sgd --lr 0.5 --hidden 40 --batch 8 --steps 4 --max-steps 40 --partition random
contract --cell mingru --level bpe --vocab-size 300 --bptt full --hidden 24 --batch 24 --shards 8 --epochs 3 --layers 2 --skip

# Ranks on unlike CPUs, of a matrix that leaves in several slices: both cut it in the same places.
if [ ${#isas[@]} -gt 1 ]; then
  wide=(--hidden 512 --layers 2 --batch 16 --steps 6 --max-steps 4)
  unlike() {
    timeout -k 5 120 mpirun -n 1 env UNROLL_ISA="$1" "$unroll" train text -o unlike.h5 --overwrite "${wide[@]}" : \
      -n 1 env UNROLL_ISA="$2" "$unroll" train text -o unlike.h5 --overwrite "${wide[@]}" >out 2>&1
  }
  export OMP_NUM_THREADS=1 UNROLL_TEAM=1
  check "one rank" "$unroll" train text -o one_wide.h5 --overwrite "${wide[@]}" >out 2>&1
  for order in "${isas[*]}" "${isas[1]} ${isas[0]}"; do
    read -r first second <<<"$order"
    check "ranks with $first and $second" unlike "$first" "$second"
    check "ranks with $first and $second: the same bits" same_run one_wide.h5 unlike.h5
  done
  unset OMP_NUM_THREADS UNROLL_TEAM
fi

# ------------------------------------------------------------------- samples
"$unroll" sample --length 300 --count 2 one.h5 >drawn 2>/dev/null
check "a sample is drawn" [ "$(wc -c <drawn)" -gt 600 ]
for item in 1:3:0 1:1:1 2:2:0; do
  IFS=: read -r ranks threads isa <<<"$item"
  OMP_NUM_THREADS=$threads UNROLL_ISA=${isas[$((isa % ${#isas[@]}))]} mpirun -n "$ranks" "$unroll" sample \
    --length 300 --count 2 8-2.h5 >again 2>/dev/null
  check "the same text from $ranks ranks, $threads threads" cmp drawn again
done
"$unroll" sample --length 300 --count 2 --seed 2 one.h5 >other 2>/dev/null
check_not "another seed draws another text" cmp -s drawn other

# ---------------------------------------- three ranks: no promise but to repeat
odd=(--hidden 24 --batch 48 --shards 12 --steps 9 --max-steps 30)
check "three ranks" train a.h5 3 1 "${isas[0]}" 6 "${odd[@]}"
check "three ranks, each alone" train b.h5 3 2 "${isas[0]}" 1 "${odd[@]}"
check "three ranks repeat themselves" same_run a.h5 b.h5
check "six ranks" train a.h5 6 1 "${isas[0]}" 6 "${odd[@]}"
check "six ranks, again" train b.h5 6 1 "${isas[0]}" 6 "${odd[@]}"
check "six ranks repeat themselves" same_run a.h5 b.h5

# ------------------------------------------------------- the comparison can fail
check "another seed" train b.h5 1 1 "${isas[0]}" 6 "${odd[@]}" --seed 2
check_not "another seed is another run" same_run a.h5 b.h5 >/dev/null

finish
