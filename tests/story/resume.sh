#!/bin/bash
# Stop in every way, go on with other ranks: the bits of a run that never stopped.
#
#   resume.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
export OMP_NUM_THREADS=1
make_text 40000 >text

# Long enough never to end by itself; reports and validations often, so that stops fall between them.
options=(--hidden 48 --batch 16 --steps 20 --epochs 1000 --warmup 10)
often=(--log-every 3 --valid-every 25 --diagnose-every 7)

# goes_on FILE RANKS OPTION...: 40 more steps equal a run of one rank that never stopped
goes_on() {
  local file=$1 ranks=$2 last
  shift 2
  last=$(($(step_of "$file") + 40))
  quiet 0 mpirun -n "$ranks" "$unroll" train text --resume -o "$file" --max-steps $last &&
    quiet 0 "$unroll" train text --overwrite -o whole.h5 --max-steps $last "${options[@]}" "$@" &&
    same_run whole.h5 "$file"
}

output=() # or a command that runs a rank with its output elsewhere

# start FILE RANKS OPTION...: in the background, until it has written some reports; $launcher is its id
start() {
  local file=$1 ranks=$2 tries=0
  shift 2
  rm -f "$file" "${file%.h5}".*
  mpirun -n "$ranks" "${output[@]}" "$unroll" train text -o "$file" "${options[@]}" "$@" >stopped 2>&1 &
  launcher=$!
  while [ ! -f "${file%.h5}.jsonl" ] || [ "$(wc -l <"${file%.h5}.jsonl")" -lt 5 ]; do
    sleep 0.05
    tries=$((tries + 1))
    if [ $tries -gt 1200 ] || ! kill -0 $launcher 2>/dev/null; then
      cat stopped
      return 1
    fi
  done
}

# The ranks are children of mpirun on one host.
rank_ids() { ps -o pid= --ppid "$launcher"; }

# -------------------------------------------------------------- by --max-steps
check "a run of 7 steps" quiet 0 mpirun -n 2 "$unroll" train text -o a.h5 --max-steps 7 "${options[@]}" "${often[@]}"
check "after 7 steps" goes_on a.h5 4 "${often[@]}"
check "after 47 steps" goes_on a.h5 1 "${often[@]}"
check "options repeated" quiet 0 "$unroll" train text --resume -o a.h5 --max-steps 88 "${options[@]}" "${often[@]}"
check "no text: that of the run file" quiet 0 "$unroll" train --resume -o a.h5 --max-steps 89
check "89 steps" [ "$(step_of a.h5)" = 89 ]

# ----------------------------------------------------- a cell with two states
lstm=(--cell lstm --layers 2 --log-every 3 --valid-every 25)
check "an LSTM of 7 steps" quiet 0 mpirun -n 2 "$unroll" train text -o lstm.h5 --max-steps 7 "${options[@]}" "${lstm[@]}"
check "an LSTM after 7 steps" goes_on lstm.h5 4 "${lstm[@]}"

# ------------------------------------------------------------------ by signals
for signal in USR1 TERM INT; do
  check "start, to be stopped" start b.h5 2 "${often[@]}"
  kill -$signal "$(rank_ids | tail -n 1)" # one rank alone: all agree
  wait $launcher
  status=$?
  check "SIG$signal on a rank: status $status" [ $status = 75 ]
  check "SIG$signal is told, with the way on" grep -q 'stopped on a signal at step [0-9]*, .*--resume' stopped
  check "after SIG$signal" goes_on b.h5 4 "${often[@]}"
done

# What batch systems send before they kill.
for signal in USR2 XCPU HUP; do
  check "start, to be stopped" start b.h5 2 "${often[@]}"
  kill -$signal "$(rank_ids | tail -n 1)"
  wait $launcher
  status=$?
  check "SIG$signal on a rank: status $status" [ $status = 75 ]
done
check "after SIG$signal" goes_on b.h5 1 "${often[@]}"

# A signal while MPI starts: MPI_Init sends it, on one rank alone.
if cc=$(command -v cc) && ! is_sanitized; then
  cat >early.c <<'C'
#include <signal.h>
#include <stdlib.h>
#include <string.h>
int PMPI_Init_thread(int *, char ***, int, int *);
int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided)
{
  const char *rank = getenv("OMPI_COMM_WORLD_RANK") ? getenv("OMPI_COMM_WORLD_RANK") : getenv("PMI_RANK");
  if (strcmp(rank == NULL ? "" : rank, getenv("EARLY")) == 0) { raise(SIGUSR1); }
  return PMPI_Init_thread(argc, argv, wanted, provided);
}
C
  check "a library that interrupts" "$cc" -shared -fPIC -o early.so early.c
  for ranks in 1 2; do
    rm -f early.h5
    mpirun -n $ranks env EARLY=$((ranks - 1)) LD_PRELOAD="$PWD/early.so" "$unroll" train text -o early.h5 "${options[@]}" >stopped 2>&1
    status=$?
    check "SIGUSR1 while MPI starts: status $status" [ $status = 75 ]
    check "is told" grep -q 'stopped on a signal at step 1, ' stopped
  done
  check "after SIGUSR1 while MPI starts" goes_on early.h5 2
fi

check "start, to be stopped" start b.h5 2 "${often[@]}"
kill -USR1 $launcher # mpirun passes it on
wait $launcher
status=$?
check "SIGUSR1 through mpirun: status $status" [ $status = 75 ]
check "after SIGUSR1 through mpirun" goes_on b.h5 1 "${often[@]}"

# mpirun ends with a status of its own; the ranks have a second. It no longer reads what they print meanwhile, and
# a full pipe would stop them: so many reports in so short a time go to a file.
output=(sh -c 'exec "$0" "$@" >ranks 2>&1')
check "start, to be stopped" start b.h5 2 "${often[@]}"
kill -TERM $launcher
wait $launcher
check "SIGTERM through mpirun leaves a checkpoint" [ -f b.h5 ]
# Whatever became of the status: the run file is asked.
check "it is not finished, and says so" quiet 1 "$unroll" info --finished b.h5
check "in a line" grep -q '^unroll: b.h5: not finished, stands after step [0-9]*$' err
check "after SIGTERM through mpirun" goes_on b.h5 8 "${often[@]}"
output=()

# ------------------------------------------------------------------ by kill -9
check "start, to be killed" start c.h5 2 "${often[@]}" --checkpoint-every 10 --keep 1
for _ in $(seq 200); do
  [ -f c.1.h5 ] && break
  sleep 0.05
done
kill -KILL "$(rank_ids | tail -n 1)"
wait $launcher
check "kill -9 leaves a run file" [ -f c.h5 ]
echo '{"kind": "train", "step": 999999, "loss"' >>c.jsonl # half a line, as a crash leaves it
check "kill -9 leaves no temporary file" [ "$(find . -name 'c.*' ! -name 'c.h5' ! -name 'c.1.h5' ! -name 'c.best.h5' \
  ! -name c.jsonl | wc -l)" -le 1 ]
check "after kill -9" goes_on c.h5 4 "${often[@]}" # run.jsonl is cut back: same_run.py compares it with the metrics

# ------------------------------------------------ a limit of the size of files
# 8 MB, more than MPI needs and less than this run file; in sh units of 512 bytes, in bash of 1024.
large=(--hidden 1000 --batch 16 --steps 8 --epochs 1 --valid-fraction 0)
check "past the limit of files" quiet 1 mpirun -n 2 sh -c 'ulimit -f 8000; exec "$0" "$@"' "$unroll" train text -o limit.h5 \
  "${large[@]}" --checkpoint-every 1 --max-steps 2
check "training goes on" grep -q '^unroll: warning: .*limit.h5.*File too large' err
check "the exit status and a line tell" grep -q '^unroll: error: .*limit.h5.*File too large' err
check "nothing is left" [ "$(echo limit*)" = limit.jsonl ]

# ------------------------------------------------------------ nothing to resume
check "no file yet: starts" quiet 0 mpirun -n 2 "$unroll" train text --resume -o d.h5 --max-steps 9 "${options[@]}" "${often[@]}"
check "after that start" goes_on d.h5 2 "${often[@]}"

# -------------------------------------------------- what shapes the result stays
cp d.h5 kept.h5
for option in "hidden 49" "layers 2" "activation relu" "cell gru" "forget-bias 2" "batch 32" "steps 21" "epochs 5" "optimizer sgd" "lr 1e-3" \
  "clip 2" "seed 2" "shards 8" "level byte" "partition random" "schedule constant" "warmup 11" "init identity" \
  "valid-every 24" "valid-fraction 0.1" "min-count 3" "beta1 0.8"; do
  read -r name value <<<"$option"
  check "--$option is refused" quiet 2 "$unroll" train text --resume -o d.h5 "--$name" "$value"
  check "--$option is named" grep -q -- "--$name .*: the run to resume has" err
done
make_text 40010 >longer
check "another text is refused" quiet 2 "$unroll" train longer --resume -o d.h5
check "another text is named" grep -q 'longer: not the text' err
check "an existing file is no new run" quiet 2 "$unroll" train text -o d.h5 "${options[@]}" "${often[@]}"
check "and both ways on are named" grep -q -- '--resume.*--overwrite\|--overwrite.*--resume' err
check "nothing was written" cmp d.h5 kept.h5
check "what may change" quiet 0 "$unroll" train text --resume -o d.h5 --log-every 5 --keep 1 --checkpoint-every 20 \
  --max-steps 60

# ------------------------------------------------------------------- finished
check "to the end" quiet 0 "$unroll" train text -o e.h5 --hidden 8 --batch 16 --steps 60 --epochs 1
cp e.h5 kept.h5
check "a finished run resumed" quiet 0 mpirun -n 2 "$unroll" train text --resume -o e.h5
check "says so" grep -q 'ended: all epochs done' err
check "and is left alone" cmp e.h5 kept.h5
check "it is finished" quiet 0 mpirun -n 2 "$unroll" info --finished e.h5
check "without a word" [ ! -s out ]
check "where there is no run file" quiet 2 "$unroll" info --finished none.h5

# The best model before the end: it belongs to a finished run, and is what to sample from.
check "a run that gets worse" quiet 0 "$unroll" train text -o f.h5 --hidden 8 --batch 16 --steps 20 --epochs 20 --lr 0.3 --schedule constant \
  --valid-every 5
check "its best model is not its last" [ "$(step_of f.best.h5)" -lt "$(step_of f.h5)" ]
check "next is its best model" grep -q 'unroll sample f.best.h5 ' err
check "info of it" quiet 0 "$unroll" info f.best.h5
check "tells of the run" grep -q "^the best model of f.h5, which has finished after step $(step_of f.h5): after step $(step_of f.best.h5) in" out
check "and of how to go on with it" grep -q '^  unroll train --resume --change --epochs 40 -o f.h5 ' out
check "which is finished" quiet 0 "$unroll" info --finished f.best.h5
check "info of the run" quiet 0 "$unroll" info f.h5
check "names its best model" grep -q '^  unroll sample f.best.h5 ' out
check "what it learnt from" grep -q '^text: text, [0-9]* tokens for training' out
check "how well" grep -q "^best validation  step $(step_of f.best.h5)  loss" out
check "how fast" grep -q '^speed: [0-9.e+]* tokens per second, mean, on 1 rank x ' out
check "what is special about it" grep -q '^  Optimization:  batch 16  epochs 20  lr 0.3  schedule constant$' <(sed -n '/^options that differ/,/^$/p' out)
check "how to go on with one that was stopped" quiet 0 "$unroll" train text -o g.h5 "${tiny[@]}" --max-steps 2
check "the page" quiet 0 "$unroll" info g.h5
go_on=$(sed -n 's/^  unroll \(train --resume .*\)    go on$/\1/p' out)
check "says it: $go_on" quiet 0 "$unroll" $go_on
check "and it is right" quiet 0 "$unroll" info --finished g.h5

finish
