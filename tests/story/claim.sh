#!/bin/bash
# Two runs of one name: the second is refused. A run that was killed is in nobody's way, nor is what it left half written.
#
#   claim.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
make_text 20000 >text
long=(--hidden 16 --batch 8 --steps 8 --epochs 100000 --log-every 10)

# start COMMAND...: in the background, until it has reported; $job is its id
start() {
  rm -f run.jsonl
  "$@" "$unroll" train text "${long[@]}" --overwrite >log 2>&1 & # -o run.h5 is the default
  job=$!
  until [ -s run.jsonl ]; do
    kill -0 $job 2>/dev/null || { cat log && return 1; }
    sleep 0.05
  done
}

check "a run" start env
for second in "" "--overwrite" "--resume" "-o ./run.h5" "-o run --overwrite" "-o link --overwrite"; do
  ln -sf run.h5 link
  # shellcheck disable=SC2086 # words
  check "another one is refused, $second" quiet 2 timeout 60 "$unroll" train text "${long[@]}" $second
  check "it says who writes it: $(cat err)" grep -q "another run writes it, on host $(hostname), process $job, since 20" err
done
check "and under mpirun" quiet 2 timeout 60 "${mpirun_quiet[@]}" -n 2 "$unroll" train text "${long[@]}" --overwrite
check "in one line" [ "$(grep -c '^unroll: error: ' err)" = 1 ]
check "--dry-run writes nothing, and may speak" quiet 0 timeout 60 "$unroll" train text "${long[@]}" --overwrite --dry-run
check "another name is free" quiet 0 timeout 60 "$unroll" train text "${tiny[@]}" -o other.h5
check "the first one goes on" kill -0 $job
kill -USR1 $job
wait $job
status=$?
check "and saves, status $status" [ $status = 75 ]
check "nothing is left: $(ls -A)" [ "$(find . -name '*.claim*' -o -name '*.tmp' | wc -l)" = 0 ]
check "it goes on" quiet 0 timeout 60 "$unroll" train --resume --max-steps "$(($("$unroll" info run.h5 | sed -n 's/.* after step \([0-9]*\).*/\1/p') + 5))"

# Two at once: one trains, one is refused.
for k in 1 2; do
  { "$unroll" train text "${tiny[@]}" -o race.h5 --max-steps 300 >"out.$k" 2>&1; echo $? >"status.$k"; } &
  racers[k]=$!
done
wait "${racers[@]}"
check "one of two at once: $(cat status.*)" [ "$(sort status.1 status.2 | xargs)" = "0 2" ]

# Killed in the middle of a write.
check "a run that will be killed" start mpirun -n 2
kill -KILL "$(sed -n 's/^process //p' .run.claim)"
wait $job
check "its claim stays" [ -f .run.claim ]
head -c 1000 run.h5 >run.h5.4711.tmp
head -c 1000 run.h5 >run.best.h5.4711.1.tmp
touch run.h5.mine.tmp run.h5.tmp
check "the next one needs no help" quiet 0 timeout 60 "$unroll" train text "${tiny[@]}" --overwrite
check "and clears up: $(ls -A)" [ "$(find . -name '*.claim*' -o -name '*4711*' | wc -l)" = 0 ]
check "what is not of a run it leaves alone" [ -f run.h5.mine.tmp -a -f run.h5.tmp ]

finish
