# What eval and sample print, and what they do when nobody reads it.
. "$(dirname "$0")/lib.sh"

make_text 20000 >text
"$unroll" train text "${tiny[@]}" -o char.h5 >/dev/null 2>&1 || fail "no model of characters"
"$unroll" train text "${tiny[@]}" --level word -o word.h5 >/dev/null 2>&1 || fail "no model of words"
"$unroll" train text --hidden 8 --batch 4 --epochs 1 --bptt full --sequences line -o line.h5 >/dev/null 2>&1 ||
  fail "no model of lines"

# -------------------------------------------------------- eval --per-line
# A row for each line of the text, numbered as in the text; together they are the whole.
printf 'the tree\n\ngate and river' >lines0
printf '\nthe tree\ngate and river\n' >lines1
printf '\n\nthe tree\n' >lines2
for model in char word line; do
  for empty in 0 1 2; do
    file=lines$empty
    for ranks in 1 2; do
      check "$model $file" quiet 0 mpirun -n $ranks "$unroll" eval --per-line $model.h5 $file
      check "$model $file on $ranks: a row for each line" \
        cmp <(tail -n +2 out | cut -f 1) <(seq "$(grep -c '' $file)")
      check "$model $file on $ranks: tokens of all lines" \
        [ "$(awk '{sum += $2} END {print sum}' out)" = "$(sed -n 's/^tokens \([0-9]*\) .*/\1/p' err)" ]
    done
    tail -n +2 out | cut -f 1-2 >rows
    check "$model $file" quiet 0 "$unroll" eval --per-line --json $model.h5 $file
    check "$model $file: --json has the same lines" cmp rows \
      <(sed -n 's/.*"line": \([0-9]*\),/\1/p' out | paste - <(sed -n 's/^   .*"tokens": \([0-9]*\),/\1/p' out))
  done
done
# The end of an empty first line is the one token of the text that a stream does not score.
"$unroll" eval --per-line word.h5 lines2 >out 2>/dev/null
check "tokens of each line, in a stream" [ "$(tail -n +2 out | cut -f 2 | xargs)" = "0 1 3" ]
"$unroll" eval --per-line line.h5 lines2 >out 2>/dev/null
check "tokens of each line, in sequences" [ "$(tail -n +2 out | cut -f 2 | xargs)" = "1 1 9" ]

# ------------------------------------------------------- sample: the prime
sample() { "$unroll" sample "$1.h5" --length 5 --prime "$2" --seed "$3" 2>&1; }
words=0
for seed in 1 2 3 4 5 6 7 8; do
  sample word 'the river' $seed >apart
  sample word 'the river ' $seed >spaced
  check "seed $seed: the prime comes first" grep -q '^the river' apart
  if grep -q '^the river ' spaced && [ "$(head -1 spaced)" != 'the river ' ]; then
    words=$((words + 1))
    check "seed $seed: a space between the prime and the first word, and one only" cmp apart spaced
  fi
  check "seed $seed: nothing goes before the first character" [ "$(sample char 'the riv' $seed | wc -c)" = 13 ]
done
check "words were drawn first" [ $words -gt 0 ]
"$unroll" sample word.h5 --length 300 --prime $'the river\n' >out
check "several lines" [ "$(wc -l <out)" -gt 3 ]
check_not "no line begins with a space" grep -q '^ ' out

# ------------------------------------------------- tokens not in the vocabulary
# <unk> costs only its own probability, whatever it stands for: no bits per character, which would compare with others.
check "a vocabulary of three" quiet 0 "$unroll" train text "${tiny[@]}" --level word --max-vocab 3 -o few.h5
check "no bits of its validation" grep -Eq '^valid step [0-9]+ epoch [0-9]+ loss [0-9.]+ ppl [0-9.]+$' out
check "eval" quiet 0 "$unroll" eval few.h5 text
check "has none: $(cat out)" grep -Eq '^tokens [0-9]+  loss [0-9.]+  perplexity [0-9.]+  tokens_per_second .* unknown [1-9]' out
check "as JSON" quiet 0 "$unroll" eval --json few.h5 text
check "null" grep -q '"bits_per_character": null' out
check "info" quiet 0 "$unroll" info few.h5
check_not "has none" grep -q bits_per_character out
check "compare" quiet 0 "$unroll" compare few.h5 char.h5
check "puts it last, without: $(cat out)" grep -Eq '^ *2 few.h5 +- ' out

# Four streams predict tokens 2 to 4n + 1: a word that is cut, at the end of a text as of `head -c`, removes the figure
# where it is the last of these, and not behind them.
for n in 41 42 43 44; do
  { printf 'the %.0s' $(seq $n) && printf 'riv'; } >cut
  check "a validation text of $n words and a cut one" quiet 0 "$unroll" train text "${tiny[@]}" --level word --max-steps 4 \
    --valid-every 4 --valid cut --overwrite -o cut.h5
  check "is said to have it" grep -q ', 1 of all unknown,' err
  figure=$(grep -c '^valid .* bits_per_character [0-9]' out)
  check "info" quiet 0 "$unroll" info cut.h5
  check "says the same" [ "$(grep -c '^valid .* bits_per_character [0-9]' out)" = "$figure" ]
  check "compare" quiet 0 "$unroll" compare cut.h5
  check "says the same" [ "$(grep -cE '^ *1 cut.h5 +[0-9]' out)" = "$figure" ]
  check "bits per character: $figure" [ "$figure" = $((n % 4 != 0)) ]
done

# -------------------------------------------------------- train: its reports
report=(text --hidden 8 --batch 4 --steps 8 --epochs 25 --log-every 5000 --valid-every 5000)
check "train" quiet 0 mpirun -n 2 "$unroll" train "${report[@]}" -o report.h5
check "its lines fit a terminal: $(awk 'length > 80' out)" [ "$(awk 'length > 80' out)" = "" ]
number='[0-9.]+(e[+-][0-9]+)?'
check "they have what people watch" [ "$(grep -cxE \
  "train step [0-9]+ epoch [0-9]+ loss $number ppl $number norm $number tok/s $number[kM]? left ([0-9]+h)?([0-9]+m)?([0-9]+s)?" out)" = 3 ]
check "and of validations" [ "$(grep -cxE "valid step [0-9]+ epoch [0-9]+ loss $number ppl $number bits_per_character $number" out)" = 2 ]
check "nothing else" [ "$(wc -l <out)" = 5 ]
cp out short
check "the full ones" quiet 0 mpirun -n 2 "$unroll" train "${report[@]}" -o report.h5 --overwrite --log-format full
keys="step epoch loss perplexity grad_norm clip_scale learning_rate tokens tokens_per_second seconds compute_seconds exchange_seconds wait_seconds"
check "have every number" [ "$(sed -n 's/^train//p' out | sed 's/ \([a-z_]*\) [^ ]*/\1 /g' | sort -u)" = "$keys " ]
check "of the same losses" cmp <(cut -d ' ' -f 1-7 short) <(cut -d ' ' -f 1-7 out)

# After millions of updates, with a loss as long as it comes the lines still fit.
if python=$(find_python); then
  check "a start" quiet 0 "$unroll" train text --hidden 8 --batch 4 --steps 8 --epochs 1000000 --max-steps 5 --lr 1e-30 --valid-every 2 -o late.h5
  check "made late" "$python" -c 'import h5py
f = h5py.File("late.h5", "r+")
f["state"].attrs["step"] = 1234567
f["weights/output/b_q"][0] = 11.2'
  "$python" "$source_dir/tests/story/in_pty.py" --out-to out "$unroll" train --resume -o late.h5 --max-steps 1234575 \
    --log-every 1 | tr '\r' '\n' >err
  check "reports" grep -q '^train step 1234569 epoch 1 loss [0-9.]* ppl [0-9]* norm' out
  check "fit a terminal: $(awk 'length > 80' out | head -3)" [ "$(awk 'length > 80' out)" = "" ]
  sed -n 's/^.\[K\([0-9]*\/.*\)/\1/p' err >drawn
  check "so does the line that is drawn, with the time left: $(cat drawn)" \
    awk 'length > 80 || !/ left$/ { bad = 1 } END { exit bad || NR == 0 }' drawn
fi

# Standard error is no terminal: where nothing is reported for long, a line tells that the run goes on.
"${mpirun_quiet[@]}" -n 2 "$unroll" train text --hidden 400 --batch 4 --epochs 1000 --log-every 1M --valid-fraction 0 \
  -o long.h5 >out 2>err &
launcher=$!
for _ in $(seq 300); do
  if grep -q '^step' err; then break; fi
  sleep 0.1
done
kill -USR1 $launcher
wait $launcher
check "a line now and then: $(tail -3 err)" grep -qxE "step [0-9]+/[0-9]+ epoch [0-9]+/1000 loss $number ppl $number( norm $number)? $number[kM]? tok/s .* left" err
check "not often" [ "$(grep -c '^step' err)" -le 2 ]

# ------------------------------------------------- nobody reads the output
# A text that would take hours; whether SIGPIPE is ignored must not depend on who started this.
endless=("$unroll" sample char.h5 --length 1G)
timeout -k 5 100 env --default-signal=PIPE "${endless[@]}" 2>err | head -c 5 >out
status=${PIPESTATUS[0]}
check "a closed pipe ends sample as it ends other tools, $status" [ "$status" = 141 ]
check "a closed pipe is no error" [ ! -s err ]
check "what was read is there" [ "$(wc -c <out)" = 5 ]
timeout -k 5 100 env --ignore-signal=PIPE "${endless[@]}" 2>err | head -c 5 >out
status=${PIPESTATUS[0]}
check "where SIGPIPE is ignored, a closed pipe is a failed write, $status" [ "$status" = 1 ]
check "it is told in one line" [ "$(grep -c '^unroll: error: standard output' err)/$(wc -l <err)" = 1/1 ]
for command in 'info char.h5' 'eval --per-line --json char.h5 text' 'train --help'; do
  # shellcheck disable=SC2086 # words
  { sleep 1 && env --default-signal=PIPE "$unroll" $command 2>err; echo $? >status; } | : # gone before the first line
  check "$command: quiet when the pipe is closed, $(cat status)" [ "$(cat status)$(grep '^unroll: error' err)" = 141 ]
done
if [ -w /dev/full ]; then
  for count in 1 1000; do
    timeout -k 5 100 "${endless[@]}" --count $count 2>err >/dev/full
    check "a full disk is an error" [ $? = 1 ]
    check "told in one line" [ "$(grep -c '^unroll: error: standard output' err)/$(wc -l <err)" = 1/1 ]
  done
fi
# ------------------------------------------------------ closed descriptors
# Nothing that is opened takes their place: a result that nobody gets is a failure, with one of them closed or all.
(exec "$unroll" info char.h5 >&- 2>err)
check "standard output is closed" [ $? = 1 ]
check "told in one line" [ "$(grep -c '^unroll: error: standard output' err)/$(wc -l <err)" = 1/1 ]
(exec "$unroll" info char.h5 <&- >&- 2>&-)
check "all are closed" [ $? = 1 ]
(exec "$unroll" info char.h5 <&- >out 2>&-)
check "the result can be written: success" [ $? = 0 ]
check "it is there" cmp out <("$unroll" info char.h5)
(exec "$unroll" train text "${tiny[@]}" --log-every 1 -o closed.h5 <&- >&- 2>&-)
check "train has a run file" quiet 0 "$unroll" info --verify closed.h5
check "the same as ever" [ "$(grep '^weights' out)" = "$("$unroll" info --verify char.h5 | grep '^weights')" ]
finish
