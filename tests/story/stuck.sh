#!/bin/bash
# A rank hangs: another one says that it waits, and --wait-limit ends the job; or it goes on, and nothing is lost. A rank
# that never starts MPI ends the job too. On one host; hosts/cable.sh has two.
#
#   stuck.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
make_text 20000 >text

# Each rank leaves its process in a file named for it.
# shellcheck disable=SC2016 # the ranks' shell expands it
ranks=(-n 2 sh -c 'touch "process.$$" && exec "$@"' sh)
timeout 60 "${mpirun_quiet[@]}" "${ranks[@]}" "$unroll" train text -o run.h5 --hidden 16 --batch 8 --steps 8 \
  --valid-fraction 0 --epochs 100000 --log-every 10 --wait-limit 2s >out 2>err &
job=$!

# until_so COMMAND...: it succeeds before the job ends
# shellcheck disable=SC2317 # called by check
until_so() {
  until "$@"; do
    kill -0 "$job" 2>/dev/null || return 1
    sleep 0.1
  done
}
check "it trains" until_so [ -s run.jsonl ]
files=(process.*)
stopped=${files[0]#process.}
kill -STOP "$stopped"
wait "$job"
status=$?
check_not "the run ends well" [ $status = 0 ]
check_not "the limit does not end the job: $(cat err)" [ $status = 124 ]
# Whom it names is the matter of mpi.watchdog: a rank that is stopped inside MPI may have come where it is waited for.
waits="rank [01] on [^ ]* (process [0-9]*) has waited [0-9]* s for .*: [a-z ]*, step [0-9]*"
check "it is said who waits, and in which step: $(cat err)" grep -q "^unroll: error: $waits: --wait-limit is reached" err
kill -KILL "$stopped" 2>/dev/null # where the launcher has not

# Stopped, named, continued: the run ends as if nothing had been.
rm -f process.* run.jsonl
run=(--hidden 16 --batch 8 --steps 8 --valid-fraction 0 --epochs 40 --log-every 10)
timeout 120 "${mpirun_quiet[@]}" "${ranks[@]}" "$unroll" train text -o run.h5 --overwrite "${run[@]}" >out 2>err &
job=$!
check "it trains again" until_so [ -s run.jsonl ]
files=(process.*)
stopped=${files[0]#process.}
kill -STOP "$stopped"
check "the stopped rank is named: $(cat err)" until_so grep -q "^unroll: warning: rank .* has waited .*process $stopped)" err
kill -CONT "$stopped"
check "the run ends well: $(cat err)" wait "$job"
check "it ends" quiet 0 "$unroll" train text -o whole.h5 "${run[@]}"
if python=$(find_python); then check "the same bits" same_run whole.h5 run.h5; fi

# Any other command names it too, and goes on when it does.
make_text 2000000 >long
# shellcheck disable=SC2016 # the ranks' shell expands it
first=(-n 2 sh -c 'touch "first.$$.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" && exec "$@"' sh)
UNROLL_WAIT_WARNING=2 timeout 120 "${mpirun_quiet[@]}" "${first[@]}" "$unroll" eval --per-line whole.h5 long >out 2>err &
job=$!
check "it scores: $(cat err)" until_so [ -s out ]
files=(first.*.0)
stopped=$(echo "${files[0]}" | cut -d. -f2)
kill -STOP "$stopped"
waits="rank 1 on [^ ]* (process [0-9]*) has waited [0-9]* s for rank 0 on [^ ]* (process $stopped): [a-z ]* (eval)"
check "the stopped rank of eval is named: $(cat err)" until_so grep -q "^unroll: warning: $waits" err
kill -CONT "$stopped"
check "eval ends well: $(cat err)" wait "$job"
check_not "the advice is for another command: $(cat err)" grep -q -e --resume -e --wait-limit -e checkpoint err
check "it is scored alone" "$unroll" eval --per-line whole.h5 long >alone 2>/dev/null
check "the same scores" cmp alone out

# One of two never starts MPI, and the others do not wait for ever.
UNROLL_START_LIMIT=2 timeout 60 "${mpirun_quiet[@]}" -n 1 "$unroll" train text -o half.h5 : -n 1 "$unroll" --version \
  >out 2>err
status=$?
check "the start has a limit, status $status: $(cat err)" [ $status != 124 ]
check_not "it is a failure: $(cat err)" [ $status = 0 ]
if ! mpirun --version | grep -q HYDRA; then
  check "it is said why: $(cat err)" grep -q "^unroll: error: process .* has waited 2 s for MPI to start" err
fi
finish
