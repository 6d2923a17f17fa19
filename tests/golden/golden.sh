#!/bin/bash
# The runs of the table `runs` have the hashes that stand there, on two ranks on every code path with FMA, and on one.
#
#   golden.sh SOURCE UNROLL
. "$(dirname "$0")/../story/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
golden=$source_dir/tests/golden

make_text 30000 | sed 's/stone/Straße/g; s/river/ΣΊΓΜΑ/g; s/walks/Ärger/g; s/cold/語り/g' >text
check "the text is that of the hashes" grep -qx "$(sha256sum <text | cut -d ' ' -f 1) text" "$golden/runs"

need_fma

# train RANKS ISA OPTION...: into RANKS-ISA.h5
train() {
  local ranks=$1 isa=$2
  shift 2
  UNROLL_ISA=$isa quiet 0 mpirun -n "$ranks" "$unroll" train text --seed 7 --max-steps 25 --log-every 4 --valid-every 10 \
    "$@" -o "$ranks-$isa.h5" --overwrite
}

export OMP_NUM_THREADS=1
runs=0
while read -r hash options; do
  runs=$((runs + 1))
  read -r -a words <<<"$options"
  files=()
  for item in "1:${isas[0]}" "${isas[@]/#/2:}"; do
    IFS=: read -r ranks isa <<<"$item"
    check "$options: trained on $isa, ranks: $ranks" train "$ranks" "$isa" "${words[@]}" </dev/null
    files+=("$ranks-$isa.h5")
  done
  "$python" "$golden/hash.py" "${files[@]}" >made
  printf "$hash  %s\n" "${files[@]}" >expected
  check "$options: other hashes" diff expected made
done < <(grep -e ' --' "$golden/runs")
check "nine runs or more" [ $runs -ge 9 ]
finish
