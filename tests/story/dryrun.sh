# --dry-run: what it says of a run is what the run then does, what it refuses the run refuses in the same words,
# and nothing is written.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1

mkdir inputs
cd inputs || exit 1
make_text 300000 >text
make_text 3000 >short

snapshot() { find . -printf '%p %y %s %T@\n' | sort | sed 's/^\. d .*//'; }

# said KEY: its value in the answer of a dry run, the first where there are several
said() { tr ' ' '\n' <../out | grep -A1 -x "$1" | sed -n 2p; }

# dry ARGUMENT...: a dry run that leaves ../out; nothing else
dry() {
  snapshot >../before
  timeout -k 5 120 "$unroll" train --dry-run "$@" >../out 2>../err || fail "$*: $(tail -1 ../err)"
  snapshot >../after
  check "$*: nothing is written" cmp -s ../before ../after
}

# ------------------------------------------------------ what it says, and what a run does
model=(text --hidden 48 --batch 32 --steps 20 --epochs 2 --max-steps 3)
for n in 1 4 16; do
  dry "${model[@]}" --ranks $n
  check "$n ranks: ranks" [ "$(said ranks)" = $n ]
  check "$n ranks: shards of a rank" [ "$(said shards_of_rank)" = $((16 / n)) ]
  check "$n ranks: sequences of a rank" [ "$(said sequences_of_rank)" = $((32 / n)) ]
  check "$n ranks: a link for each speed" [ "$(grep -c '^link ' ../out)" = $((n > 1 ? 3 : 0)) ]
  check "$n ranks: time of a step" awk "BEGIN { exit !($(said compute_seconds) > 0) }"
  "${mpirun_quiet[@]}" -n $n "$unroll" train "${model[@]}" -o ../run.h5 --overwrite >../log 2>../err ||
    fail "$n ranks: the run failed: $(tail -1 ../err)"
  check "$n ranks: tokens" grep -q "^text: $(said train_tokens) tokens for training, $(said valid_tokens) for" ../err
  check "$n ranks: vocabulary" grep -q "vocabulary of $(said vocab)\$" ../err
  check "$n ranks: parameters" grep -q "^model: $(said parameters) parameters\$" ../err
  check "$n ranks: steps and windows" \
    grep -q "^run: $(said updates) updates in 2 epochs of $(said windows), $(said shards) shards\$" ../err
  check "$n ranks: steps of both epochs" [ "$(said steps)" = $((2 * $(said windows))) ]
done

# Batches that few ranks can share are told, with a better one; not so where it was chosen, or settled by the run file.
fewer=(text --hidden 8 --steps 20 --epochs 1 --max-steps 1 --valid-fraction 0)
check "one shard" quiet 0 "$unroll" train "${fewer[@]}" --batch 63 -o ../fewer.h5
check "is told" grep -q '^unroll: warning: --batch 63 makes 1 shard, so that no more than 1 rank can share it; --batch 64 makes 16$' err
check "it goes on" quiet 0 "$unroll" train --resume -o ../fewer.h5 --max-steps 2
check_not "without a word" grep -q 'warning: --batch' err
for batch in 100:4:96:16 12: 50:2:48:16 24: "63 --shards 7": 8:; do
  IFS=: read -r batch shards better most <<<"$batch"
  # shellcheck disable=SC2086 # words
  check "--batch $batch" quiet 0 "$unroll" train "${fewer[@]}" --batch $batch -o ../fewer.h5 --overwrite
  line="unroll: warning: --batch $batch makes $shards shards, so that no more than $shards ranks can share it; --batch $better makes $most"
  check "--batch $batch: $(grep 'warning: --batch' err)" [ "$(grep 'warning: --batch' err)" = "${shards:+$line}" ]
done
rm -f out err

# What is left of a run.
dry --resume -o ../run.h5 --ranks 2 --max-steps 10
check "resume: from step 3" [ "$(said resumed_step)" = 3 ]
check "resume: 7 updates more" [ "$(said updates)" = 7 ]

# Without --ranks: as many as there are.
"${mpirun_quiet[@]}" -n 2 "$unroll" train --dry-run "${model[@]}" >../out 2>../err || fail "two ranks: $(tail -1 ../err)"
check "the ranks that are there" [ "$(said ranks)" = 2 ]

# Ranks of unlike threads: the memory of the one that takes most, wherever it is.
workspace() { said workspace_bytes; }
dry_as() {
  "${mpirun_quiet[@]}" "$@" >../out 2>../err || fail "$*: $(tail -1 ../err)"
}
one=(-n 1 env OMP_NUM_THREADS=1 "$unroll" train --dry-run "${model[@]}")
three=(-n 1 env OMP_NUM_THREADS=3 "$unroll" train --dry-run "${model[@]}")
dry_as "${one[@]}" : "${one[@]}"
few=$(workspace)
dry_as "${three[@]}" : "${three[@]}"
many=$(workspace)
check "threads take memory" [ "$few" -lt "$many" ]
dry_as "${one[@]}" : "${three[@]}"
check "the memory of the most threads" [ "$(workspace)" = "$many" ]

# The longest line is in the last row, of which rank 0 of 16 has nothing.
{
  make_text 20000
  make_text 3000 | tr '\n' ' '
} >../late
lines=(../late --bptt full --sequences line --batch 32 --hidden 8 --valid-fraction 0)
dry "${lines[@]}" --ranks 16
alone=$(workspace)
"${mpirun_quiet[@]}" -n 16 "$unroll" train --dry-run "${lines[@]}" >../out 2>../err || fail "lines: $(tail -1 ../err)"
check "one rank knows of the longest line" [ "$alone" = "$(workspace)" ]

# Not what bench can run: nothing is made up.
dry text --bptt full --hidden 8 --ranks 4
check "full: memory is known" [ "$(said rank_bytes)" -gt 0 ]
check "full: time is not" grep -q '^time .* compute_seconds unknown: ' ../out
check_not "full: no link" grep -q '^link ' ../out

# ------------------------------------------------------------------------- memory
# Resident sets, with 64 MB for what MPI takes between ranks; of the counted bytes nearly all are in use.
if ! is_sanitized; then
  cat >../measured <<'SH'
#!/usr/bin/env python3
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[1:], close_fds=False)  # one of them is the PMI of MPICH
with open("../peak." + (os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]), "w") as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=file)
sys.exit(status)
SH
  chmod +x ../measured
  large=(text --hidden 512 --batch 256 --steps 256 --valid-fraction 0)
  dry "${large[@]}" --ranks 4
  UNROLL_TEAM=1 "${mpirun_quiet[@]}" -n 4 ../measured "$unroll" train "${large[@]}" --max-steps 2 -o ../large.h5 >../log 2>&1 ||
    fail "the large run failed: $(tail -1 ../log)"
  counted=$(($(said rank_bytes) + $(said shared_bytes)))
  most=$((counted + $(said process_bytes) + 64000000))
  for rank in 0 1 2 3; do
    peak=$(cat ../peak.$rank)
    echo "rank $rank: peak $((peak / 1000000)) MB, counted $((counted / 1000000)) MB, at most $((most / 1000000)) MB"
    check "rank $rank takes no more than was said" [ "$peak" -le $most ]
    check "rank $rank takes what was counted" [ "$peak" -ge $((counted * 8 / 10)) ]
  done
fi

# -------------------------------------------------------------- many ranks, in seconds
make_text 5500000 >../many
before=$SECONDS
dry ../many --hidden 64 --batch 65536 --shards 65536 --ranks 65536
check "65536 ranks: one sequence each" [ "$(said sequences_of_rank)" = 1 ]
check "65536 ranks: at most 60 s" [ $((SECONDS - before)) -le 60 ]

# ------------------------------------------------------------------------- refused
# refused RANKS PART ARGUMENT...: the dry run and the run end with 2 and the same line, which has the part
refused() {
  local n=$1 part=$2 status
  shift 2
  snapshot >../before
  timeout -k 5 60 "$unroll" train --dry-run --ranks "$n" "$@" >../out 2>../err
  status=$?
  check "$*: exit status $status" [ $status = 2 ]
  check "$*: nothing is said" [ ! -s ../out ]
  grep '^unroll: error: ' ../err >../line
  check "$*: one line with \"$part\": $(cat ../line)" grep -qF -- "$part" ../line
  timeout -k 5 60 "${mpirun_quiet[@]}" -n "$n" "$unroll" train "$@" >../out 2>../err
  status=$?
  check "$*: the run: exit status $status" [ $status = 2 ]
  check "$*: the run says the same" [ "$(grep '^unroll: error: ' ../err)" = "$(cat ../line)" ]
  snapshot >../after
  check "$*: nothing is written" cmp -s ../before ../after
}

refused 3 'start 1, 2, 4, 8, 16 ranks' text
refused 8 'largest legal --batch is 40 ' short --batch 512 --shards 512
refused 2 'at least' short --bptt full --sequences paragraph --batch 1000 --shards 1000
refused 2 'exists already' text -o ../run.h5
refused 2 'no_such_text' no_such_text
refused 2 '--hidden 9' -o ../run.h5 --resume --hidden 9
refused 1 '--stride' text --steps 4 --stride 8
timeout 20 "$unroll" train text --ranks 4 >../out 2>../err
status=$?
check "--ranks alone: exit status $status" [ $status = 2 ]
check "--ranks alone: what it needs" grep -q '^unroll: error: --ranks needs --dry-run' ../err
finish
