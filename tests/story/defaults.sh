#!/bin/bash
# Options that the size of the text decides: told, kept in the run file, the same on any number of ranks and after a resume.
#
#   defaults.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py"
make_text 80000 >text
head -c 40000 text >small

train() { quiet "$1" mpirun -n "$2" "$unroll" train "${@:3}"; }
said() { sed -n 's/^text: for its size the default is //p' err; }
config_of() {
  "$python" -c 'import sys, h5py; c = h5py.File(sys.argv[1], "r")["config"].attrs; print(*(c[k] for k in ("batch", "epochs", "shards")))' "$1"
}

few=(--hidden 8 --max-steps 3)
check "a text" train 0 1 text "${few[@]}" -o text.h5
check "said: $(said)" [ "$(said)" = "--batch 16, --epochs 20" ]
check "kept: $(config_of text.h5)" [ "$(config_of text.h5)" = "16 20 16" ]
check "half of it" train 0 1 small "${few[@]}" -o one.h5
check "said: $(said)" [ "$(said)" = "--batch 16, --epochs 40" ]
check "on four ranks" train 0 4 small "${few[@]}" -o four.h5
check "the same" same_run one.h5 four.h5
check "words are fewer than characters" train 0 1 text "${few[@]}" --level word -o words.h5
check "said: $(said)" [ "$(said)" = "--batch 16, --epochs 40" ]

check "given, it is as given" train 0 1 text "${few[@]}" --batch 16 --epochs 20 -o given.h5
check "without a word" [ -z "$(said)" ]
check "and the same" same_run text.h5 given.h5
check "--batch alone" train 0 1 small "${few[@]}" --batch 64 -o batch.h5
check "leaves ten epochs: $(config_of batch.h5)" [ "$(config_of batch.h5)" = "64 10 16" ]
check "--epochs alone" train 0 1 small "${few[@]}" --epochs 2 -o epochs.h5
check "said: $(said)" [ "$(said)" = "--batch 16" ]
check "--shards alone" train 0 3 small "${few[@]}" --shards 12 -o shards.h5
check "makes a batch of them: $(config_of shards.h5)" [ "$(config_of shards.h5)" = "24 40 12" ]

check "go on" train 0 2 --resume --max-steps 6 -o one.h5
check "without a word" [ -z "$(said)" ]
check "a run in one part" train 0 1 small --hidden 8 --max-steps 6 -o whole.h5
check "is the same" same_run whole.h5 one.h5
check "the words of the default" train 0 1 small --resume --max-steps 6 --batch 16 --epochs 40 -o one.h5
check "others" train 2 1 small --resume --max-steps 7 --batch 64 -o one.h5
check "are refused" grep -q -- '--batch 64: the run to resume has 16' err

check "three ranks" train 2 3 small "${few[@]}" -o no.h5
check "cannot share it" grep -q '^unroll: error: 3 ranks cannot share 16 shards evenly' err
check "nothing is written" [ ! -e no.h5 ]
check "a dry run" train 0 1 --dry-run small --hidden 8
check "says it" grep -q '^plan .* batch 16 epochs 40$' out
check "so does the help" grep -q 'default: from the size of the text' <("$unroll" train --help | tr -s ' \n' ' ')
finish
