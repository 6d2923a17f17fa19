#!/bin/bash
# `unroll sample`: primes from files, which tokens --top-k and --top-p leave, a reader that goes, a terminal.
#
#   sample.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
make_text 20000 >text
check "a model" quiet 0 "$unroll" train text --hidden 16 --batch 4 --steps 16 --epochs 2 -o run.h5
check "a model of words" quiet 0 "$unroll" train text --level word --hidden 8 --batch 4 --steps 8 --epochs 1 -o word.h5

# ------------------------------------------------------------- a prime from a file
printf 'the river\nsings' >prime
for model in run word; do
  check "from a file" quiet 0 "$unroll" sample $model.h5 --prime-file prime --length 50
  mv out of_file
  check "from the command line" quiet 0 "$unroll" sample $model.h5 --prime "$(cat prime)" --length 50
  check "the same" cmp out of_file
done
head -c 10000 text >long
check "a long one" quiet 0 "$unroll" sample run.h5 --prime-file long --length 1
check "is printed first" cmp -n 10000 out long
check "an empty one" quiet 0 "$unroll" sample run.h5 --prime-file /dev/null --length 50
mv out of_file
check "is none" quiet 0 "$unroll" sample run.h5 --length 50
check "the same" cmp out of_file
printf 'the\0river' >zero
refused() { # WORDS -- OPTION...
  check "refused: ${*:3}" quiet 2 "$unroll" sample run.h5 "${@:3}"
  check "says \"$1\": $(cat err)" grep -q -- "^unroll: error: .*$1" err
  check "and nothing else" [ "$(wc -l <err)-$(wc -c <out)" = 1-0 ]
}
refused 'none_such: No such file' -- --prime-file none_such
refused '\.: Is a directory' -- --prime-file .
refused 'zero: byte 3 is zero' -- --prime-file zero
refused 'both given' -- --prime a --prime-file prime
refused 'top-p 0 .*above 0' -- --top-p 0
refused 'top-p 1.1 ' -- --top-p 1.1

# ----------------------------------------------------------- a reader that goes
# In a pipe the text comes as it is drawn: 5 bytes are there long before a buffer is full.
for model in run word; do
  check "a reader that goes" [ "$(timeout 60 "$unroll" sample $model.h5 --length 1G | head -c 5 | wc -c)" = 5 ]
done

# ------------------------------------------------ what is drawn, and on a terminal
check "tokens and talk" "$python" "$source_dir/tests/story/sample.py" "$source_dir" "$unroll" run.h5
finish
