# unroll watch: logs of runs that end, go on, are cut back, are silent or not there, on a terminal and in a file.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"

make_text 20000 >text
export OMP_NUM_THREADS=1
check "a run" quiet 0 "$unroll" train text -o whole.h5 "${tiny[@]}" --log-every 5 --valid-every 50
updates=$(sed -n 's/^run: \([0-9]*\) updates.*/\1/p' err)
check "one that is told to stop" quiet 0 "$unroll" train text -o part.h5 "${tiny[@]}" --log-every 5 --max-steps 30

# ------------------------------------------------------------- as it stands
check "a finished one" quiet 0 "$unroll" watch whole.h5
check "is said to be so" grep -q '^whole\.h5 .* finished$' out
loss() { sed -n "s/^{\"kind\": \"$1\".*\"loss\": \([0-9.]*\),.*/\1/p" "$2" | tail -1 | xargs printf '%.4f'; }
check "its last losses" grep -q "^loss $(loss train whole.jsonl) o valid $(loss valid whole.jsonl) best" out
braille=$(printf '│.*\342[\240-\243]')
check "a curve of braille" [ "$(LC_ALL=C grep -c "$braille" out)" -gt 3 ]
check "validations on it" grep -q '│.*o' out
check "in 80 columns" awk 'length > 80 { bad = 1 } END { exit bad }' <(LC_ALL=C tr -d '\200-\277' <out)
check "by the name of its best model or its log, once" quiet 0 "$unroll" watch whole.best.h5 whole.jsonl whole.h5
check "it is one" [ "$(grep -c finished out)" = 1 ]
check "one told to stop" quiet 0 "$unroll" watch --once part.h5
check "is said to be so" grep -q 'part\.h5 .* stopped$' out
check "how far it was to go" grep -q '^step 30/30 ' out
check "two" quiet 0 "$unroll" watch whole.h5 part.h5
check "are beside each other, on one scale" [ "$(grep -c '│.*│' out)" -gt 3 ]
check "none yet, and a folder" quiet 0 "$unroll" watch none.h5 whole.h5
check "is said to be so" grep -q '^none\.h5 .* no log yet  whole' out
mkdir folder.jsonl
check "a folder" quiet 0 "$unroll" watch folder.jsonl
check "is no log" grep -q '^folder.* Is a directory$' out
check "many" quiet 0 "$unroll" watch whole.h5 {1..20}.h5
check "are a table" [ "$(grep -c . out)" = 22 ]
check "with a line for each" grep -q '^whole\.h5  finished .* '"$(loss valid whole.jsonl)" out
head -20 whole.jsonl >quiet.jsonl
touch -d '2 hours ago' quiet.jsonl
check "killed long ago" quiet 0 "$unroll" watch quiet.h5
check "is said to be silent" grep -q '^quiet\.h5 .* silent for 2h00m$' out
check_not "without a time left" grep -q left out
: >empty.jsonl
check "begun just now" quiet 0 "$unroll" watch empty.h5
check "is said to be so" grep -q '^empty\.h5 .* no report yet$' out
touch -d '3 minutes ago' empty.jsonl
check "and without a report" quiet 0 "$unroll" watch empty.h5
check "is said to be so" grep -q '^empty\.h5 .* no report for 3m0[0-9]s$' out
check "under mpirun" quiet 0 mpirun -n 2 "$unroll" watch whole.h5
check "once" [ "$(grep -c finished out)" = 1 ]
check "resumed to go further" quiet 0 "$unroll" train --resume --max-steps 0 -o part.h5
check "knows how far" grep -q "\"steps\": $updates}" <(head -1 part.jsonl)

# ------------------------------------------------------------ on a terminal
checks=$((checks + 1))
"$python" "$source_dir/tests/story/watch.py" "$unroll" whole.jsonl || fail "on a terminal"
finish
