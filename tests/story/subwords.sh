#!/bin/bash
# Models of subwords, from text to sample: the tokens are those of the definition on any number of ranks, and every
# command knows them.
#
#   subwords.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
export OMP_NUM_THREADS=1
make_text 30000 | sed 's/stone/Straße/g; s/river/語り/g; s/ sings/  aaaaaaa\tsings/' >text
make_text 50000 | tail -c 9000 | sed 's/gate/Gäste/g' >other

model=(--level bpe --vocab-size 340 --valid other --hidden 16 --batch 8 --steps 10 --log-every 5)
for ranks in 1 2 4; do
  check "on $ranks" quiet 0 mpirun -n $ranks "$unroll" train text "${model[@]}" -o run$ranks.h5 --max-steps 20 --valid-every 10
done
check "the same" same_run run1.h5 run2.h5 run4.h5
check "the tokens of the definition" "$python" "$source_dir/tests/oracle/bpe.py" run1.h5 text 340
check "the file opens with other tools" quiet 0 "$python" "$source_dir/tests/story/open_with_tools.py" run1.h5
check "goes on" quiet 0 mpirun -n 2 "$unroll" train --resume -o run2.h5 --max-steps 30
check "as one that never stopped" quiet 0 "$unroll" train text "${model[@]}" -o whole.h5 --max-steps 30 --valid-every 10
check "the same" same_run run2.h5 whole.h5

check "eval" quiet 0 "$unroll" eval --json run1.h5 other
check "no token is unknown, and a character is a character" "$python" -c 'import json, math, sys
s = json.load(open("out")); n = len(open("other", encoding="utf-8", newline="").read())
assert s["unknown"] == 0 and s["characters"] == n and s["tokens"] < n, s
bits = s["loss"] * (s["tokens"] + 1) / n / math.log(2)
assert abs(s["bits_per_character"] / bits - 1) < 1e-9, (s, bits)'
check "lines" [ "$("$unroll" eval --per-line run1.h5 other 2>/dev/null | tail -n +2 | wc -l)" = "$(grep -c '' other)" ]
check "info" quiet 0 "$unroll" info run1.h5
check "names the level" grep -q '^run1.h5: subword model, .* vocabulary of 340,' out
check "sample" quiet 0 "$unroll" sample run1.h5 --prime "the Straße" --length 50 --temperature 0
check "others draw the same" cmp out <("$python" "$source_dir/jobs/analysis/load_numpy.py" run1.h5 --prime "the Straße" --length 50)
check "given weights" quiet 0 "$unroll" train other --init-from run1.h5 --valid text --batch 8 --steps 10 --max-steps 2 -o tuned.h5
check "with their subwords" quiet 0 "$python" -c 'import h5py
a, b = (h5py.File(name)["vocab/token"].asstr()[...].tolist() for name in ("run1.h5", "tuned.h5"))
assert a == b'
check "--letters" quiet 2 "$unroll" train text --level bpe --letters -o no.h5
check "is refused" grep -q -- '^unroll: error: --letters leaves no text for --level bpe' err
check "--vocab-size of characters" quiet 2 "$unroll" train text --vocab-size 300 -o no.h5
check "is refused" grep -q -- '--vocab-size needs --level bpe; here --level is char' err
check "--lowercase" quiet 0 "$unroll" train other "${model[@]}" --lowercase -o small.h5 --max-steps 2
check "leaves no capital letter" quiet 0 "$python" -c 'import h5py
v = h5py.File("small.h5")["vocab"]
assert not any(n and any(c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for c in t) for t, n in zip(v["token"].asstr()[...], v["count"][...]))'
finish
