#!/bin/bash
# jobs/experiments/published.py: each published result begins as its options say, goes on, and shows in a table.
#
#   experiments.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(command -v python3) || skip "no python3"
published=("$python" "$source_dir/jobs/experiments/published.py" "$unroll" data)
mkdir -p data/timemachine data/tinyshakespeare
make_text 60000 >data/timemachine/timemachine.txt
cp data/timemachine/timemachine.txt data/tinyshakespeare/input.txt

check "all of them, two updates" quiet 0 "${published[@]}" --max-steps 2
names=$(cd "$source_dir/jobs/experiments/published" && printf '%s\n' *.conf | sed 's/\.conf$//')
for name in $names; do
  check "$name is a row" grep -Eq "^\| $name \| [0-9,]+ \| 2 \| " out
  check "$name goes by its options" grep -Fq "config $source_dir/jobs/experiments/published/$name.conf" <("$unroll" info "$name.h5")
  # What is on record: a text, a loss and the bits.
  for fact in text 'train loss' 'valid loss' weights; do
    check "$name has its $fact" grep -Eq "^#: $fact [^ ]+$" "$source_dir/jobs/experiments/published/$name.conf"
  done
done

check "goes on" quiet 0 "${published[@]}" --max-steps 3 time_machine-rnn
check "one update more" grep -Eq '^\| time_machine-rnn \| [0-9,]+ \| 3 \| ' out
check "what is not as recorded" quiet 1 "${published[@]}" time_machine-rnn --launch 'env UNROLL_ISA=portable'
check "is told" grep -q 'published.py: time_machine-rnn: .* on record' err
check "no such result" quiet 2 "${published[@]}" nothing
check "the legal ones are told" grep -q 'nothing: is no result; legal are .*time_machine-rnn' err

finish
