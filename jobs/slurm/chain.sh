#!/bin/bash
# A training longer than a job may last, as a chain of jobs, for sites that allow no requeue: each goes on where the
# one before has saved. At the end, if all went well, a command of your choice.
#
#   chain.sh JOBS SCRIPT [COMMAND]
#
#   chain.sh 5 train.sbatch                                    up to five times its --time
#   chain.sh 5 train.sbatch 'unroll eval run.h5 test.txt'      then score a text, as a job of one task
#
# Edit SCRIPT (train.sbatch or train-mpirun.sbatch) before. Take rather too many jobs than too few: those left over
# when the run has finished end at once. After a job that failed the next one tries again from the last checkpoint.
# COMMAND runs if the run has finished in the last job; if not, it is taken from the queue.
# See it run: squeue --me. End it: scancel, with the numbers printed here.
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
  echo "usage: chain.sh JOBS SCRIPT [COMMAND], for example: chain.sh 5 train.sbatch" >&2
  exit 2
fi

# submit OPTION...: the number of the new job
submit() {
  local job
  job=$(sbatch --parsable "$@") || return # in $(...) bash forgets -e
  echo "${job%%;*}" # without the name of the cluster
}

job=$(submit "$2")
echo "$job: $2"
for ((k = 2; k <= $1; k++)); do
  before=$job
  job=$(submit --dependency=afterany:"$before" "$2")
  echo "$job: $2, after $before"
done
if [ $# = 3 ]; then
  before=$job
  job=$(submit --dependency=afterok:"$before" --kill-on-invalid-dep=yes --job-name=unroll-end --output=%x-%j.out \
    --ntasks=1 --wrap "$3")
  echo "$job: $3, if $before has finished the run"
fi
