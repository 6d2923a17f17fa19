# Nobody reads what train says: its output goes to a full pipe, and it must not wait.
. "$(dirname "$0")/lib.sh"
make_text 20000 >text
run=(text --hidden 8 --batch 4 --steps 8 --log-every 1 --valid-fraction 0 --shards 4 --epochs)
check "it trains" quiet 0 "$unroll" train "${run[@]}" 4 -o read.h5
lines=$(wc -l <out)
python=$(find_python) || python=

# full_pipe NAME: one that is full, and held open by this shell, which does not read it; the descriptor is in $full
full_pipe() {
  mkfifo "$1"
  exec {full}<>"$1"
  timeout 0.3 head -c 1M /dev/zero >&$full
}

# same NAME: that run has the bits of the one whose output was read
same() {
  [ -z "$python" ] || same_run read.h5 "$1.h5"
}

full_pipe never
timeout 100 "$unroll" train "${run[@]}" 4 -o none.h5 >never 2>err
check "standard output is full: $(cat err)" [ $? = 0 ]
check "the same bits" same none
check "all else is said" grep -q '^next: unroll info none.h5' err
timeout 100 "$unroll" train "${run[@]}" 4 -o none2.h5 >out 2>never
check "standard error is full" [ $? = 0 ]
check "the same bits" same none2
check "all reports are said" [ "$(wc -l <out)" = "$lines" ]
timeout 100 "$unroll" train absent -o none3.h5 >never 2>never
check "the status of an error" [ $? = 2 ]

# read_late NAME FILE: from now on the pipe is read, until all that write have ended; without what filled it
read_late() {
  exec {in}<"$1" {full}>&-
  tr -d '\0' <&$in >"$2" &
  reader=$!
  exec {in}<&-
}

# The reader comes late. Each line was either read, or counted.
full_pipe late
(
  exec {full}>&-
  exec "$unroll" train "${run[@]}" 40 -o late.h5 >late 2>err
) &
job=$!
until [ -s late.jsonl ]; do
  kill -0 $job || break
  sleep 0.1
done
read_late late got
check "the run ends well: $(cat err)" wait $job
wait $reader
left=$(sed -n 's/^left_out lines //p' got | paste -sd + | sed 's/^$/0/')
check "it says how many are left out: $left" [ "$left" != 0 ]
check "each line was read or counted: $(grep -c '^train' got) + $left" \
  [ $(($(grep -c '^train' got) + left)) = $((lines * 10)) ]
check "lines are whole" [ "$(grep -vcE '^train step .* left [0-9hms]+$|^left_out lines [0-9]+$' got)" = 0 ]

# A launcher that nobody reads may no longer read its ranks.
full_pipe launcher
timeout 100 "${mpirun_quiet[@]}" -n 2 "$unroll" train "${run[@]}" 4 -o ranks.h5 >launcher 2>&1 &
job=$!
for _ in $(seq 600); do
  [ -e ranks.h5 ] && "$unroll" info --finished ranks.h5 && break
  kill -0 $job || break
  sleep 0.1
done
check "the ranks finish" quiet 0 "$unroll" info --finished ranks.h5
read_late launcher got
check "and the launcher, when it is read" wait $job
wait $reader
finish
