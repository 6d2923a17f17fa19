#!/bin/bash
# Every signal that asks a run to stop, to each rank alone and to mpirun, while MPI starts, while text is read, during steps,
# validation and the writing of checkpoints. The run ends as documented, in bounded time; its file is valid and goes on with other
# ranks to the bytes of a run that got no signal.
#
#   signals.sh SOURCE UNROLL FAULT [all [FIRST [LAST]]]    without `all` a dozen; a failure names its number in the list of all
. "$(dirname "$0")/lib.sh" "$@"
all=${4-} first=${5:-1} last=${6:-1000000}

signals=(TERM INT HUP USR1 USR2 XCPU)
phases=(start read step valid save)
# Where nothing else takes time: phases are met by chance in these, and by counting calls in the others.
model="--cell gru --hidden 24 --batch 8 --steps 16"
kinds=("$model --epochs 2 --max-steps 200 --valid-every 60"        # start, read, save
  "$model --epochs 4 --max-steps 1500 --log-every 200"            # steps
  "$model --epochs 1 --max-steps 60 --valid-every 1 --valid ../valid") # validation
often=(--checkpoint-every 20)
make_text 60000 >valid
for kind in 0 1 2; do check "undisturbed, kind $kind" whole $kind; done

# signal_by_chance NAME TARGET RANKS: within half a second after the first checkpoint of $kind
signal_by_chance() {
  local job id tries=0
  (cd round && train "$kind" "$3") >log 2>&1 &
  job=$!
  until grep -q '^checkpoint of step' log || ! kill -0 $job 2>/dev/null || [ $((tries += 1)) -gt 1000 ]; do sleep 0.02; done
  pick 400
  sleep "$(printf '0.%03d' "$picked")"
  if [ "$2" = mpirun ]; then id=$(cat launcher); else id=$(sed -n "$(($2 + 1))p" ranks); fi
  if kill -"$1" "$id" 2>/dev/null; then echo ' hit' >trace; fi
  wait $job
}

# signal_at_call PHASE N NAME TARGET RANKS: at the N-th call of that class, on that rank; or there to mpirun
signal_at_call() {
  (
    cd round && export UNROLL_FAULT=$1:$2:$3 UNROLL_FAULT_RANK=$4 UNROLL_FAULT_TRACE=$work/trace UNROLL_FAULT_IN=$work
    if [ "$4" = mpirun ]; then UNROLL_FAULT=$1:$2:mpirun:$3 UNROLL_FAULT_RANK=0; fi
    train "$kind" "$5" env LD_PRELOAD="$fault"
  ) >log 2>&1
}

# send PHASE NAME TARGET RANKS: to a run in the folder `round`; $kind and $status
send() {
  rm -rf round trace launcher ranks && mkdir round && unset 'steps[round]'
  kind=0
  case $1 in
  step) kind=1 && signal_by_chance "$2" "$3" "$4" ;;
  valid) kind=2 && signal_by_chance "$2" "$3" "$4" ;;
  start) signal_at_call start 1 "$2" "$3" "$4" ;;
  read) pick 6 && signal_at_call read $((picked + 1)) "$2" "$3" "$4" ;;
  save) pick 60 && signal_at_call save $((picked + 1)) "$2" "${3/1/0}" "$4" ;; # rank 0 alone does it
  esac
  status=$?
}

# What may come of it. A launcher passes USR1 and USR2 on; at the others it ends the ranks with SIGTERM, and then with SIGKILL,
# or dies itself. After the last step a signal comes too late.
is_documented() {
  case $1:$2 in
  *:124) return 1 ;;
  mpirun:*) true ;;
  *:75) grep -q '^unroll: stopped on a signal at step [0-9]*, .*--resume' log ;;
  *:0) grep -q '^ended: ' log ;;
  *) return 1 ;;
  esac
}

rounds=()
for phase in "${phases[@]}"; do
  for name in "${signals[@]}"; do
    for target in 0 1 mpirun; do rounds+=("$phase $name $target"); done
  done
done
numbers=()
for ((i = first; i <= ${#rounds[@]} && i <= last; ++i)); do
  if [ "$all" = all ] || [ $((i % 8)) = 4 ]; then numbers+=("$i"); fi
done

hits=0 late=0
declare -A ended
for i in "${numbers[@]}"; do
  read -r phase name target <<<"${rounds[i - 1]}"
  RANDOM=$i
  pick 3 && ranks=$((picked == 0 ? 4 : 2))
  send "$phase" "$name" "$target" $ranks
  what="signal $i of ${#rounds[@]}: $name in $phase to $target of $ranks ranks: status $status"
  if grep -q ' hit$' trace 2>/dev/null; then hits=$((hits + 1)); else late=$((late + 1)); fi
  ended[$([ "$target" = mpirun ] && echo mpirun || echo rank):$status]+=x
  check "$what: as documented: $(tail -n 5 log)" is_documented "$target" $status
  check "$what: all ranks end" ranks_are_gone
  check "$what: the run file is valid" is_valid round
  pick 3
  check "$what: goes on" goes_on "$kind" $((1 << picked)) round
  check "$what: the same bytes" is_same "$kind" round
done
echo "$hits signals, $late came after the end; target:status and how often:" \
  "$(for end in "${!ended[@]}"; do echo "$end ${#ended[$end]}"; done | sort | xargs)"
finish
