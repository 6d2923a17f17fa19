#!/bin/bash
# A cable is pulled while ranks on two hosts train, or a rank hangs: who waits for whom is said in time, the job ends
# in bounded time, and goes on from its checkpoint; plugged in again in time, it just goes on.
#
#   cable.sh SOURCE UNROLL DELAY
# shellcheck disable=SC2317 # functions are called by check
. "$(dirname "$0")/lib.sh" "$@"
make_text 40000 >text
keepalive=(--mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 3)
options=(text --hidden 32 --batch 16 --steps 16 --epochs 100000 --valid-fraction 0 --log-every 50)
check "two hosts" net make 2

# start FILE WORD...: train on both hosts, for 110 seconds at most, until there is something in FILE; $job is its id
start() {
  local file=$1 tries=0
  shift
  rm -f run.* whole.*
  timeout 110 "$hosts_tool" exec "$network" h1 mpirun --bind-to none --host h1,h2 "$@" >out 2>errors &
  job=$!
  until [ -s "$file" ]; do
    sleep 0.05
    tries=$((tries + 1))
    if [ "$tries" -gt 1200 ] || ! kill -0 "$job" 2>/dev/null; then
      cat out errors
      return 1
    fi
  done
}

# Seconds without a checkpoint follow one: while rank 0 writes one, others are patient.
train=("$unroll" train "${options[@]}" -o run.h5 --checkpoint-every 5s)
between() { start run.h5 "$@" && sleep 1; }

# The run goes on where its last checkpoint is, on this machine, to the bits of one that was never disturbed.
goes_on() {
  local last
  last=$(($(step_of run.h5) + 20))
  rm -f .run.claim # of host h1, of which this one knows nothing: what the refusal says to do
  quiet 0 "$unroll" train text --resume -o run.h5 --max-steps "$last" &&
    quiet 0 "$unroll" train "${options[@]}" -o whole.h5 --max-steps "$last" && same_run whole.h5 run.h5
}

# waits SECONDS COMMAND...: it succeeds within so many seconds
waits() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

space() { echo "$(cat "$network/prefix")$1"; }
rank_on() { # HOST: the process id of its only rank
  local id
  for id in $(ip netns pids "$(space "$1")"); do
    if [ "$(readlink "/proc/$id/exe")" = "$unroll" ]; then echo "$id"; fi
  done
}
has_no_rank() { [ -z "$(rank_on "$1")" ]; }

# ends STATUSES: the job ends by itself (124: it did not), with one of these
ends() {
  local status
  wait "$job"
  status=$?
  [[ " $1 " == *" $status "* ]] && return
  echo "status $status, expected one of: $1"
  cat errors
  return 1
}

# who waits for whom, in a step, with what to do
named='^unroll: warning: rank 0 on h1 (process [0-9]*) has waited [0-9]* s for rank 1 on h2 (process [0-9]*): [a-z ]*, step [0-9]*'
advice='the last checkpoint is safe.*--resume.*--mca oob_tcp_keepalive_time 5'
limited='^unroll: error: rank 0 on h1 .* rank 1 on h2 (process [0-9]*): [a-z ]*, step [0-9]*: --wait-limit'
is_named() { grep -q "$named" errors; }
says() { grep -q "$1" errors || { cat errors && false; }; }

# ------------------------------------------- pulled; mpirun is told to look
check "start" between "${keepalive[@]}" "${train[@]}"
net cable h2 down
check "a cable pulled: mpirun ends" ends "1 205"
check "a cable pulled: both ranks are named" says "$named"
check "a cable pulled: with advice" says "$named.*$advice"
net cable h2 up
check "what was cut off ends when the cable is back" waits 60 has_no_rank h2
check "a cable pulled: goes on from the checkpoint" goes_on

# ------------------------------------------------------ pulled, and back in time
check "start" start run.jsonl "${train[@]}" --max-steps 4000
net cable h2 down
check "a cable out: the ranks are named" waits 30 is_named
net cable h2 up
check "a cable back: the run ends well" ends 0
check "a cable back: all steps were done" [ "$(step_of run.h5)" = 4000 ]
check "one rank, undisturbed" quiet 0 "$unroll" train "${options[@]}" -o whole.h5 --max-steps 4000
check "a cable back: the same bits" same_run whole.h5 run.h5

# ---------------------------------- pulled; only the limit ends the job in time
check "start" between "${train[@]}" --wait-limit 8s
net cable h2 down
check "a cable pulled, no settings: the limit ends the job" ends 1
check "the limit ends the rank that was cut off, too" waits 30 has_no_rank h2
check "a cable pulled, no settings: the limit is named" says "$limited"
net cable h2 up

# ------------------------------------- a rank hangs; mpirun sees nothing wrong
check "start" between "${train[@]}" --wait-limit 8s
id=$(rank_on h2)
kill -STOP "$id"
check "a rank hangs: the limit ends the job" ends 1
check "a rank hangs: it is named" grep -q "unroll: warning: rank 0 on h1 .* for rank 1 on h2 (process $id)" errors
check "a rank hangs: the limit is named" says "$limited"
check "a rank hangs: it is ended" waits 10 has_no_rank h2
check "a rank hangs: goes on from the checkpoint" goes_on

finish
