#!/bin/bash
# kill -9 of a rank or of mpirun, at random moments and between any two calls that write; gone on with on other ranks,
# the run ends with the bytes of one that nobody disturbed.
#
#   kill.sh SOURCE UNROLL FAULT [KILLS [SEED]]    a failure names its seed: `1 SEED` repeats it
. "$(dirname "$0")/lib.sh" "$@"
wanted=${4:-3} seed=${5:-1}
counts=(1 2 4 8)
kills=0 of_mpirun=0 inside=0 late=0 rounds=0

# How many calls of a run of this kind write, as fault.c counts them: ${calls[KIND]}
declare -A calls
count_calls() {
  [ -z "${calls[$1]-}" ] || return 0
  mkdir count
  (cd count && UNROLL_FAULT_TRACE=../trace quiet 0 train "$1" 1 env LD_PRELOAD="$fault" UNROLL_FAULT_IN="$PWD")
  calls[$1]=$(grep -c '^save ' trace)
  rm -rf trace count ranks
}

# kill_writing KIND RANKS VICTIM: at a random one of the calls that write, which rank 0 makes
kill_writing() {
  local kind=$1 ranks=$2 what=KILL
  if [ "$3" = mpirun ]; then what=mpirun:KILL; fi
  pick "${calls[$kind]}"
  rm -f trace
  (
    cd round && export UNROLL_FAULT=save:$((picked + 1)):$what UNROLL_FAULT_IN=$PWD UNROLL_FAULT_TRACE=$work/trace
    train "$kind" "$ranks" env LD_PRELOAD="$fault"
  ) >log 2>&1
  status=$?
  grep -q ' hit$' trace || return 1
  if grep ' hit$' trace | grep -qv -e /dev/shm -e run.jsonl -e run.claim; then inside=$((inside + 1)); fi
}

# kill_sometime KIND RANKS VICTIM: after a random time
kill_sometime() {
  local kind=$1 ranks=$2 id job hit
  rm -f launcher
  (cd round && train "$kind" "$ranks") >log 2>&1 &
  job=$!
  pick "${took[$kind]}"
  sleep "$(printf '%d.%03d' $((picked / 1000)) $((picked % 1000)))"
  pick "$ranks"
  if [ "$3" = mpirun ]; then id=$(cat launcher 2>/dev/null); else id=$(sed -n "$((picked + 1))p" ranks 2>/dev/null); fi
  [ -n "$id" ] && kill -KILL "$id" 2>/dev/null
  hit=$?
  wait $job
  status=$?
  return $hit
}

while [ $kills -lt "$wanted" ]; do
  RANDOM=$seed
  pick ${#kinds[@]} && kind=$picked
  check "undisturbed, kind $kind" whole "$kind"
  check "its calls are counted" count_calls "$kind"
  rm -rf round && mkdir round && unset 'steps[round]'
  pick 3
  for _ in $(seq 0 "$picked"); do
    pick ${#counts[@]} && ranks=${counts[picked]}
    pick 3 && victim=$([ "$picked" = 0 ] && echo mpirun || echo rank)
    pick 3 && way=$([ "$picked" = 0 ] && echo kill_sometime || echo kill_writing)
    what="seed $seed, kind $kind, $ranks ranks, $way $victim"
    if $way "$kind" "$ranks" $victim; then
      kills=$((kills + 1))
      if [ $victim = mpirun ]; then of_mpirun=$((of_mpirun + 1)); fi
      check "$what: no hang: $(tail -n 5 log)" [ "$status" != 124 ]
    else
      late=$((late + 1))
      check "$what: it had ended: status $status: $(tail -n 5 log)" [ "$status" = 0 ]
    fi
    check "$what: all ranks end" ranks_are_gone
    check "$what: the run file is valid" is_valid round
  done
  pick ${#counts[@]} && ranks=${counts[picked]}
  check "$what: goes on with $ranks ranks" goes_on "$kind" "$ranks" round
  check "$what: the same bytes" is_same "$kind" round
  rounds=$((rounds + 1))
  seed=$((seed + 1))
done
echo "$kills kills in $rounds rounds, $of_mpirun of mpirun, $inside inside a checkpoint; $late came after the end"
finish
